"""What the checks of kp.load_model cost: its time against that of the same load without them.

    python benchmarks/load_model.py              # a small net and MobileNetV2, as .keras and .h5
    python benchmarks/load_model.py --rounds 5   # quicker
    python benchmarks/load_model.py --against ../before   # another checkout of the package, side by side

Both ways load each file in turn, ABBA: with the checks, without, without, with. A round gives one ratio; what is
printed is the median of the ratios, and their 5th and 95th percentile. The checks alone are timed as well, because on
a small net the rest of a load varies by more than they take. Against another checkout, it is the processor time of ten loads
a turn, in two processes, ABBA.
"""

import argparse
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import keras_precision as kp
from keras_precision._adapters import adapter_for_file
from keras_precision._adapters.model_file.archive import check_archive
from keras_precision._adapters.model_file.keras_objects import KerasObjects
from keras_precision.core.system.captured_output import capture_output

AIM = 1.02


def models(names: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the nets that are asked for, untrained."""
    import keras

    layers = keras.layers
    for name in names:
        if name == "mlp":
            stack = [layers.Dense(64, activation="relu"), layers.Dense(64, activation="relu"), layers.Dense(10)]
            yield name, keras.Sequential([layers.Input((32,)), *stack])
        else:
            yield name, getattr(keras.applications, name)(weights=None)


def saved(names: list[str], folder: Path) -> Iterator[Path]:
    """Save the nets in both formats; yield their files."""
    for name, model in models(names):
        for suffix in (".keras", ".h5"):
            path = folder / f"{name}{suffix}"
            model.save(path)
            yield path


def unchecked(path: Path) -> Any:
    """Load a file as kp.load_model does, but for the checks."""
    with capture_output("Keras"):
        return adapter_for_file().load(str(path))


def checks(path: Path) -> Any:
    """Make the checks of kp.load_model alone."""
    return check_archive(path).findings(KerasObjects(adapter_for_file().keras, {}), compiled=False)


def seconds(function: Callable[[Path], Any], path: Path) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    function(path)
    return time.perf_counter() - began


def row(label: str, path: Path, rounds: int) -> tuple[str, float]:
    """Measure a file; return its row of the table, and the median of the ratios."""
    for function in (kp.load_model, unchecked, checks):
        function(path)
    ratios, times, alone = [], [], []
    for _ in range(rounds):
        first, second = seconds(kp.load_model, path), seconds(unchecked, path)
        third, fourth = seconds(unchecked, path), seconds(kp.load_model, path)
        ratios.append((first + fourth) / (second + third))
        times += [second, third]
        alone.append(seconds(checks, path))
    low, middle, high = np.percentile(ratios, (5, 50, 95))
    base, cost = statistics.median(times) * 1e3, statistics.median(alone) * 1e3
    cells = [label, f"{path.stat().st_size / 1e6:.2f} MB", f"{base:.1f} ms", f"{cost:.2f} ms", f"{cost / base:.2%}"]
    return f"| {' | '.join([*cells, f'{middle:.3f}x', f'{low:.3f} to {high:.3f}'])} |", 1 + cost / base


LOADER = """
import sys, time
import keras_precision as kp
print(kp.__file__, flush=True)
for line in sys.stdin:
    began = time.process_time()
    for _ in range(10):
        kp.load_model(line.strip())
    print(time.process_time() - began, flush=True)
"""


class Loader:
    """A process that loads files with the package of one checkout."""

    def __init__(self, checkout: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        command = [sys.executable, "-P", "-c", LOADER]
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        imported = self._answer()
        if not Path(imported).is_relative_to(checkout):
            raise SystemExit(f"Expected the package of {checkout}. Received: {imported}.")

    def seconds(self, path: Path) -> float:
        """Return the processor time of ten loads."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def compare(path: Path, before: Loader, now: Loader, rounds: int) -> str:
    """Load a file with two checkouts in turn; return a row of the table."""
    for loader in (before, now, before, now):
        loader.seconds(path)
    ratios, times = [], []
    for _ in range(rounds):
        first, second, third, fourth = (loader.seconds(path) for loader in (now, before, before, now))
        ratios.append((first + fourth) / (second + third))
        times += [second, third]
    low, middle, high = np.percentile(ratios, (5, 50, 95))
    return f"| {path.name} | {statistics.median(times) * 100:.1f} ms | {middle:.3f}x | {low:.3f} to {high:.3f} |"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nets", nargs="+", default=["mlp", "MobileNetV2"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--against", type=Path, help="another checkout of the package")
    options = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.ERROR)  # Keras calls .h5 legacy, each time
    if options.against is not None:
        print(
            "### Loading against another checkout\n\n| File | Before | Now / before | 5 % to 95 % |\n"
            + "| --: " * 4
            + "|"
        )
        before, now = Loader(options.against.resolve()), Loader(Path(__file__).resolve().parents[1])
        with tempfile.TemporaryDirectory() as folder:
            for path in saved(options.nets, Path(folder)):
                print(compare(path, before, now, options.rounds), flush=True)
        before.close()
        now.close()
        return
    print(
        "### Loading\n\n| File | Size | Without checks | Checks | Share | With / without | 5 % to 95 % |\n"
        + "| --: " * 7
        + "|"
    )
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for path in saved(options.nets, Path(folder)):
            line, ratio = row(path.name, path, options.rounds)
            worst = max(worst, ratio)
            print(line, flush=True)
    print(f"\nAim: the checks take at most 2 % of a load: {'met' if worst <= AIM else 'NOT met'}.")
    here = kp.Environment.here()
    print(f"Machine: {here.processor}, {here.cores} cores, Python {platform.python_version()}.")


if __name__ == "__main__":
    main()
