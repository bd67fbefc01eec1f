"""What a report costs: seconds to build it, its size, and how long a browser takes to open it.

    python benchmarks/report.py                          # 100, 10,000 and 100,000 steps
    python benchmarks/report.py --steps 10000 --browser  # and in headless Chromium, where it is installed

Three training runs with as many steps as asked for, loss by step, loss scale, skipped steps, and figures of 300
layers in one of them; four files to deploy. The figures inside are made up: what is measured is the report.
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import keras_precision as kp

AIMS = {"bytes": 6_000_000, "seconds": 2.0}


def run(name: str, steps: int, speed: float, seed: int, layers: int = 0) -> kp.Result:
    """Return a training run that nobody ran."""
    random = np.random.default_rng(seed)
    times = random.gamma(40, speed / 40, steps)
    times[:3] = 900 * speed / 12, 40 * speed / 12, 2 * speed
    losses = 2.3 * np.exp(-4 * np.linspace(0, 1, steps)) + 0.1 + random.normal(0, 0.02, steps)
    return kp.Result(
        name,
        tuple(rows(times, losses, layers, random)),
        kp.Environment.here(backend="tensorflow", sources={"step_time_ms": "made up", "peak_memory_mb": "made up"}),
        kp.PrecisionPlan.training(name),
    )


def rows(times: np.ndarray, losses: np.ndarray, layers: int, random: np.random.Generator) -> Iterator[kp.Measurement]:
    """Yield the rows of a run."""
    low, middle, high = np.percentile(times[3:], (5, 50, 95))
    summary = {
        "step_time_ms": middle, "step_time_p5_ms": low, "step_time_p95_ms": high, "steps_measured": len(times) - 3,
        "samples_per_second": 32e3 / middle, "peak_memory_mb": 40 + 3 * middle, "weights_mb": 12.0, "gradients_mb": 12.0,
        "optimizer_mb": 24.0, "loss_scale": 32768.0, "skipped_steps": len(times) // 400, "batches": len(times),
    }  # fmt: skip
    yield from (kp.Measurement("fit", metric, value) for metric, value in summary.items())
    for step, (taken, loss) in enumerate(zip(times, losses, strict=True), 1):
        yield kp.Measurement("step" if step > 3 else "warm-up step", "step_time_ms", float(taken), step)
        yield kp.Measurement("step", "loss", float(loss), step)
    for step in range(400, len(times) + 1, 400):
        yield kp.Measurement("step", "skipped_in_window", 1, step)
        yield kp.Measurement("fit", "loss_scale", 2.0 ** (15 - step // 400 % 3), step)
    for layer in range(layers):
        for of in ("activation", "gradient", "weight_gradient"):
            for what in (
                "float16_underflow",
                "float16_overflow",
                "bfloat16_underflow",
                "bfloat16_overflow",
                "non_finite",
            ):
                share = float(random.random() ** 20)
                yield kp.Measurement(f"block_{layer // 4}/conv_{layer}", f"{of}_{what}", share, 1)


def file(name: str, size: int, latency: float, agreement: float) -> kp.Result:
    """Return a file that nobody wrote."""
    figures = {"size_bytes": size, "latency_ms": latency, "accuracy": 0.98 * agreement, "agreement": agreement}
    return kp.Result(
        f"tflite:{name}",
        tuple(kp.Measurement(f"{name}.tflite", metric, value) for metric, value in figures.items()),
        kp.Environment.here(backend="litert"),
        kp.PrecisionPlan.deployment(name, layers={"stem": "float32", "head": "float32"}),
    )


def session(steps: int, layers: int = 300) -> list[kp.Result]:
    """Return what a team would put into one report."""
    return [
        run("float32", steps, 12.0, 1),
        run("mixed_bfloat16", steps, 7.0, 2),
        run("mixed_float16", steps, 6.0, 3, layers),
        file("float32", 208_000, 0.5, 1.0),
        file("float16", 110_000, 0.45, 0.999),
        file("int8", 59_000, 0.2, 0.992),
        file("int16x8", 61_000, 0.4, 0.998),
    ]


def loaded(path: Path, times: int) -> tuple[float, float]:
    """Return how long a browser takes that was just started, until the first charts are drawn: seconds, and those of processors."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from browser import Browser

    found = []
    for _ in range(times):
        with Browser() as browser:
            found.append((browser.open(path), browser.processor_seconds()))
    return statistics.median(each for each, _ in found), statistics.median(each for _, each in found)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 10_000, 100_000])
    parser.add_argument("--layers", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--browser", action="store_true", help="open each report in headless Chromium as well")
    options = parser.parse_args()
    print(
        "### Report\n\n| Steps a run | Layers | Build | Size | Opens in | Processor time of the page |\n"
        + "| --: " * 6
        + "|"
    )
    met = True
    with tempfile.TemporaryDirectory() as folder:
        kp.save_report(session(10, 1), Path(folder) / "warm.html")  # imports, and packing plotly, once a process
        for steps in options.steps:
            results = session(steps, options.layers)
            builds = []
            for _ in range(options.repeat):
                began = time.perf_counter()
                path = kp.save_report(results, Path(folder) / "report.html")
                builds.append(time.perf_counter() - began)
            size = path.stat().st_size
            opened, busy = loaded(path, options.repeat) if options.browser else (None, None)
            cells = [f"{steps:,}", f"{options.layers}", f"{statistics.median(builds):.2f} s", f"{size / 1e6:.2f} MB"]
            cells += [f"{each:.2f} s" if each is not None else "-" for each in (opened, busy)]
            print(f"| {' | '.join(cells)} |", flush=True)
            met &= size < AIMS["bytes"] and (opened is None or steps > 10_000 or opened < AIMS["seconds"])
    print(f"\nAim: under 6 MB, and open in under 2 s with 10,000 steps and 300 layers: {'met' if met else 'NOT met'}.")
    print(
        f"Machine: {kp.Environment.here().processor}, {kp.Environment.here().cores} cores, Python {platform.python_version()}."
    )


if __name__ == "__main__":
    main()
