"""INT8 files: ours with each calibration, beside TFLiteConverter and AI Edge Quantizer as it comes.

Run: python benchmarks/ptq.py --data DATA --models MODELS

DATA holds mnist.npz, fashion_mnist.npz, fsdd_logmel.npz and hand_gesture_keypoint.npz; MODELS the models that
benchmarks/trained_nets.py names. Nets that are trained here are kept in --kept. Every arm gets the same samples, and
is measured on the same test samples: the Kullback-Leibler divergence D(model || file) of the answers, the share of
samples with the same answer, and the change of accuracy in points. An int8 softmax answers in steps of 1/256, so
probabilities below 1/512 count as 1/512, on both sides. Each figure stands as it was measured; a ratio of divergences
is a geometric mean over nets.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from peers import by_aeq, by_converter
from side_by_side import machine, markdown
from trained_nets import MAKERS, Net, nets

import keras_precision as kp
from keras_precision.quantization.weight_rounding import ROUNDINGS

OURS = {
    "ours": {},
    "ours, mse": {"calibration": "mse"},
    "ours, minmax": {"calibration": "minmax"},
    "ours, percentile": {"calibration": "percentile"},
    "ours, entropy": {"calibration": "entropy"},
    "ours, no bias correction": {"bias_correction": False},
}
PEERS = {"TFLiteConverter": by_converter, "AI Edge Quantizer": by_aeq}
VISIBLE = 1 / 512
AIMS = {"TFLiteConverter": 0.85, "AI Edge Quantizer": 0.5}


def main() -> None:
    """Measure what is asked for, and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--models", type=Path, required=True, help="folder of models")
    parser.add_argument("--kept", type=Path, default=Path("results/nets"), help="where nets trained here are kept")
    parser.add_argument(
        "--what", choices=("all", "accuracy", "rounding", "equalization", "time", "memory"), default="all"
    )
    parser.add_argument("--nets", nargs="*", help=f"some of: {', '.join(MAKERS)}")
    parser.add_argument("--samples", type=int, default=256, help="samples to calibrate with")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the times")
    parser.add_argument("--test", type=int, default=10_000, help="test samples at most")
    parser.add_argument("--few", type=int, default=100, help="samples of the memory: few of them")
    parser.add_argument("--many", type=int, default=10_000, help="and many")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(json.dumps(peak_of(options)))
        return
    if options.what in ("all", "accuracy"):
        accuracy(options)
    if options.what in ("all", "rounding"):
        rounding(options)
    if options.what in ("all", "equalization"):
        equalization(options)
    if options.what in ("all", "time"):
        times(options)
    if options.what in ("all", "memory"):
        memory(options)
    print(machine())


def at_hand(options: argparse.Namespace) -> Iterator[Net]:
    """Yield the nets that are asked for."""
    for net in nets(options.data, options.models, options.kept, options.nets):
        yield net._replace(x=net.x[: options.test], y=net.y[: options.test])


def accuracy(options: argparse.Namespace) -> None:
    """Print divergence, agreement and accuracy of every arm on every net."""
    found = {net.name: dict(measured(net, options.samples)) for net in at_hand(options)}
    arms = [*OURS, *PEERS]
    for title, column, style in (
        ("Divergence from the model", 0, "{:.6f}"),
        ("Agreement with the model, %", 1, "{:.2f}"),
        ("Change of accuracy, points", 2, "{:+.2f}"),
    ):
        rows = [(name, *(style.format(arms_of[arm][column]) for arm in arms)) for name, arms_of in found.items()]
        print(markdown(title, ("net", *arms), rows), flush=True)
    for arm in OURS:
        for peer, aim in AIMS.items():
            ratios = [arms_of[arm][0] / arms_of[peer][0] for arms_of in found.values()]
            mean = math.exp(statistics.fmean(map(math.log, ratios)))
            told = "" if arm != "ours" else f" Aim: at most {aim}: {'met' if mean <= aim else 'NOT met'}."
            print(f"{arm} : {peer} = {mean:.2f} ({min(ratios):.2f} to {max(ratios):.2f}).{told}", flush=True)


def measured(net: Net, samples: int) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Yield each arm with its divergence, agreement and change of accuracy."""
    wanted = net.model.predict(net.x, verbose=0, batch_size=256)
    given = net.calibration[:samples]
    calibration = kp.calibrate(net.model, given)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        for arm, settings in OURS.items():
            kp.export_tflite(net.model, path, "int8", calibration, io="float32", **settings)
            yield arm, figures(kp.edge.predict(path, net.x), wanted, net.y)
        for peer, make in PEERS.items():
            path.write_bytes(make(net.model, given))
            yield peer, figures(kp.edge.predict(path, net.x), wanted, net.y)


def rounding(options: argparse.Namespace) -> None:
    """Print divergence and agreement of files whose weights are rounded to the nearest and by the second order."""
    for precision in ("int4", "int8"):
        rows, ratios = [], []
        for net in at_hand(options):
            exact = net.model.predict(net.x, verbose=0, batch_size=256)
            row, divergences = [], []
            for way in ROUNDINGS:
                calibration = kp.calibrate(net.model, net.calibration[: options.samples])
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "model.tflite"
                    began = time.process_time()
                    kp.export_tflite(net.model, path, precision, calibration, io="float32", rounding=way)
                    took = time.process_time() - began
                    divergence, agreement, _ = figures(kp.edge.predict(path, net.x), exact, net.y)
                divergences.append(divergence)
                row += [f"{1e6 * divergence:.0f}", f"{agreement:.2f}", f"{took:.1f}"]
            ratios.append(divergences[ROUNDINGS.index("gptq")] / divergences[ROUNDINGS.index("nearest")])
            rows.append((net.name, *row, f"{ratios[-1]:.2f}"))
        columns = ("divergence, 1e-6", "agreement, %", "processor s")
        header = ("net", *(f"{way}: {column}" for way in ROUNDINGS for column in columns), "gptq : nearest")
        print(markdown(f"Rounding of weights in {precision}", header, rows), flush=True)
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        print(f"{precision}, gptq : nearest = {mean:.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


def equalization(options: argparse.Namespace) -> None:
    """Print the divergence of int8 and int4 files without and with cross-layer equalization."""
    rows, ratios = [], {"int8": [], "int4": []}
    for net in at_hand(options):
        wanted = net.model.predict(net.x, verbose=0, batch_size=256)
        given = net.calibration[: options.samples]
        calibrations = [kp.calibrate(net.model, given, cross_layer_equalization=each) for each in (False, True)]
        row, pairs = [], 0
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            for precision, found in ratios.items():
                apart = []
                for calibration in calibrations:
                    told = kp.export_tflite(net.model, path, precision, calibration, io="float32", rounding="nearest")
                    apart.append(figures(kp.edge.predict(path, net.x), wanted, net.y)[0])
                    pairs = told.get("equalized_pairs", 0)
                row += [f"{each:.6f}" for each in apart]
                found += [apart[1] / apart[0]] if pairs else []
        rows.append((net.name, pairs, *row))
    header = ("net", "pairs scaled", "int8", "int8, equalized", "int4", "int4, equalized")
    print(markdown("Divergence without and with cross-layer equalization", header, rows), flush=True)
    for precision, found in ratios.items():
        mean = math.exp(statistics.fmean(map(math.log, found))) if found else math.nan
        print(f"{precision}, equalized : as it is = {mean:.2f}, over {len(found)} nets with pairs", flush=True)


def figures(got: np.ndarray, wanted: np.ndarray, classes: np.ndarray) -> tuple[float, float, float]:
    """Return divergence, agreement in percent, and change of accuracy in points."""
    exact, shown = (np.maximum(values.astype(np.float64), VISIBLE) for values in (wanted, got))
    exact, shown = (values / values.sum(axis=1, keepdims=True) for values in (exact, shown))
    divergence = float((exact * np.log(exact / shown)).sum(axis=1).mean())
    before, after = wanted.argmax(axis=1), got.argmax(axis=1)
    change = 100 * (np.mean(after == classes) - np.mean(before == classes))
    return divergence, 100 * float(np.mean(before == after)), float(change)


def times(options: argparse.Namespace) -> None:
    """Print how long a first export and a further plan take, against TFLiteConverter, in rounds forth and back."""
    rows = []
    for net in at_hand(options):
        given = net.calibration[: options.samples]
        calibration = kp.calibrate(net.model, given)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            arms: dict[str, Callable[[], Any]] = {
                "converter": lambda net=net, given=given: by_converter(net.model, given),
                "first": lambda net=net, given=given, path=path: kp.export_tflite(net.model, path, "int8", given),
                "further": lambda net=net, path=path, calibration=calibration: kp.export_tflite(
                    net.model, path, "int8", calibration
                ),
            }
            took = in_rounds(arms, options.rounds)
        ratios = {
            arm: [one / other for one, other in zip(took[arm], took["converter"], strict=True)]
            for arm in ("first", "further")
        }
        rows.append(
            (
                net.name,
                *(f"{statistics.median(took[arm]):.2f}" for arm in arms),
                f"{statistics.median(ratios['first']):.2f} ({min(ratios['first']):.2f} to {max(ratios['first']):.2f})",
                f"{1 / statistics.median(ratios['further']):.0f}",
            )
        )
    header = (
        "net",
        "TFLiteConverter, s",
        "first export, s",
        "further plan, s",
        "first : converter",
        "further: times as fast",
    )
    print(markdown("Time of an int8 export", header, rows), flush=True)


def in_rounds(arms: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Time every arm in each round, forth and back, the first round left out."""
    took: dict[str, list[float]] = {arm: [] for arm in arms}
    for number in range(rounds + 1):
        for arm in arms if number % 2 else reversed(arms):
            began = time.perf_counter()
            arms[arm]()
            if number:
                took[arm].append(time.perf_counter() - began)
    return took


def memory(options: argparse.Namespace) -> None:
    """Print what calibrating adds to the memory of a process, with few samples and many."""
    rows = []
    for name in options.nets or ("ResNet, Fashion-MNIST", "CNN, Fashion-MNIST"):
        given = ("--data", options.data, "--models", options.models, "--kept", options.kept, "--nets", name)
        peaks = []
        for count in (options.few, options.many):
            command = [sys.executable, __file__, *map(str, given), "--peak", str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks.append(json.loads(done.stdout.splitlines()[-1]))
        rows.append((name, *(f"{peak:.0f}" for peak in peaks), f"{peaks[1] - peaks[0]:+.0f}"))
    print(
        markdown(
            "Memory added at the peak of a calibration, MB",
            ("net", f"{options.few:,} samples", f"{options.many:,} samples", "difference"),
            rows,
        )
    )


def peak_of(options: argparse.Namespace) -> float:
    """Return how far memory grew, in MB, while a generator of samples was calibrated on."""
    (net,) = nets(options.data, options.models, options.kept, options.nets)
    few = net.calibration[: min(100, options.peak)]
    kp.calibrate(net.model, few)  # what is loaded and kept the first time

    def pieces() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(0)
        for _ in range(options.peak // len(few)):
            yield few * rng.uniform(0.9, 1.0)

    process, done, peak = psutil.Process(), threading.Event(), 0
    before = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, process.memory_info().rss - before)

    watching = threading.Thread(target=watch)
    watching.start()
    kp.calibrate(net.model, pieces())
    done.set()
    watching.join()
    return peak / 1e6


if __name__ == "__main__":
    main()
