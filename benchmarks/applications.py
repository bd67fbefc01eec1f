"""What can be exported to full INT8: one member of each family of keras.applications, and each kind of layer.

Run: python benchmarks/applications.py --what families --seconds 3000
     python benchmarks/applications.py --what layers

Weights are random and inputs small, so that this says what is exported and how far the file agrees with the model, and
nothing of accuracy: beside the share of the same answers stands the mean error, in parts of the largest probability,
since probabilities that differ by less than a step of int8 have no order there. Each family has a process of its own, with a limit; what is measured is kept in --kept, and a
second run goes on where the first one stopped. TFLiteConverter gets the same samples.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from layer_kinds import KINDS
from peers import by_converter
from side_by_side import machine, markdown

import keras_precision as kp

FAMILIES = {
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "DenseNet121": 32,
    "VGG16": 32,
    "Xception": 71,
    "InceptionV3": 75,
    "ConvNeXtTiny": 32,
    "NASNetMobile": 32,
    "InceptionResNetV2": 75,
}
"""A member of each family to the side of its input."""

INTEGER = ("int8", "cast", "index")


def main() -> None:
    """Measure what is asked for, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=("families", "layers"), required=True)
    parser.add_argument("--names", nargs="*", help="which families or kinds; all by default")
    parser.add_argument("--kept", type=Path, default=Path("results/applications.json"), help="what was measured before")
    parser.add_argument("--seconds", type=float, default=3600, help="no family is begun after so many seconds")
    parser.add_argument("--limit", type=float, default=900, help="seconds that one family may take")
    parser.add_argument("--one", choices=FAMILIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(family(options.one)))
        return
    if options.what == "layers":
        layers(options.names or list(KINDS))
    else:
        families(options)
    print(machine())


def families(options: argparse.Namespace) -> None:
    """Export each family that was not exported before, and print all that is known."""
    began = time.monotonic()
    known = json.loads(options.kept.read_text(encoding="utf-8")) if options.kept.exists() else {}
    for name in options.names or FAMILIES:
        if name not in known and time.monotonic() - began < options.seconds:
            known[name] = in_a_process(name, options.limit)
            options.kept.parent.mkdir(parents=True, exist_ok=True)
            options.kept.write_text(json.dumps(known, indent=1), encoding="utf-8")
    arm = ("agreement, %; error", "s")
    header = ("member", "input", "ours", *arm, "TFLiteConverter", *arm)
    rows = [(name, f"{FAMILIES[name]} x {FAMILIES[name]}", *row) for name, row in known.items()]
    print(markdown("One member of each family of keras.applications", header, rows), flush=True)


def in_a_process(name: str, limit: float) -> list[str]:
    """Return the cells of a family, or what went wrong."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, "--what", "families", "--one", name]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return [f"not within {limit:.0f} s", "-", "-", "-", "-", "-"]
    if done.returncode:
        return [f"failed: {(done.stderr.strip().splitlines() or ['?'])[-1][:80]}", "-", "-", "-", "-", "-"]
    return json.loads(done.stdout.splitlines()[-1])


def family(name: str) -> list[str]:
    """Return the cells of a family: ours and TFLiteConverter's, each with agreement and seconds."""
    import keras

    keras.utils.set_random_seed(0)
    side = FAMILIES[name]
    model = getattr(keras.applications, name)(weights=None, classes=10, input_shape=(side, side, 3))
    x = np.random.default_rng(0).uniform(0, 255, (48, side, side, 3)).astype("float32")
    wanted = model.predict(x, verbose=0)
    arms: dict[str, Callable[[Path], None]] = {
        "ours": lambda path: kp.export_tflite(model, path, "int8", x[:16], io="float32"),
        "converter": lambda path: path.write_bytes(by_converter(model, x[:16])),
    }
    cells = []
    for make in arms.values():
        cells += tried(make, lambda path: f"{agreement(kp.edge.predict(path, x), wanted)}; {error_of(x, wanted)(path)}")
    return cells


def tried(make: Callable[[Path], Any], score: Callable[[Path], str]) -> list[str]:
    """Return what became of an export, how it agrees, and how long it took."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        began = time.perf_counter()
        try:
            make(path)
        except Exception as error:  # noqa: BLE001 - the table says what failed
            return [f"failed: {str(error).splitlines()[0][:80]}", "-", "-"]
        took = f"{time.perf_counter() - began:.0f}"
        floats = [operator.kernel for operator in kp.edge.inspect(path).operators if operator.precision not in INTEGER]
        return [f"float: {', '.join(sorted(set(floats)))}" if floats else "all int8", score(path), took]


def agreement(got: np.ndarray, wanted: np.ndarray) -> str:
    """Return the share of samples with the same answer, in percent."""
    return f"{100 * np.mean(got.argmax(axis=1) == wanted.argmax(axis=1)):.0f}"


def layers(names: list[str]) -> None:
    """Print what becomes of each kind of layer."""
    header = ("layer", "in the file", "error, of the largest answer")
    print(markdown("Kinds of layers under int8", header, [kind(name) for name in names]), flush=True)


def kind(name: str) -> tuple[str, ...]:
    """Return the cells of a kind of layer."""
    model, x = KINDS[name]()
    score = error_of(x, model.predict(x, verbose=0))
    return (name, *tried(lambda path: kp.export_tflite(model, path, "int8", x, io="float32"), score)[:2])


def error_of(x: Any, wanted: Any) -> Callable[[Path], str]:
    """Return what tells the mean error of a file's answers, in parts of the largest answer."""

    def tell(path: Path) -> str:
        got = kp.edge.predict(path, x)
        pairs = zip(
            got if isinstance(got, list) else [got], wanted if isinstance(wanted, list) else [wanted], strict=True
        )
        parts = [float(np.mean(np.abs(answer - exact)) / max(1e-9, np.abs(exact).max())) for answer, exact in pairs]
        return f"{max(parts):.3f}"

    return tell


if __name__ == "__main__":
    main()
