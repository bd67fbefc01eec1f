"""The toolchains side by side: three real models, each as float32 and int8 on each runtime, timed by turns.

    python benchmarks/toolchains.py --data DATA --models MODELS

A convolutional net (Fashion-MNIST), a one-dimensional one and a small Transformer (spoken digits; both are
trained here first). All run on one thread; a round times each file once, so that what slows the machine
slows all. Speedups are those of the median against TensorFlow Lite in float32, and their spread is that of
the middle half of the rounds. Then the microcontroller's arena, and Vela's figures for an Ethos-U55.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from trained_nets import SEED, AtHand, spoken, trained
from trained_nets import nets as at_hand

import keras_precision as kp
from keras_precision.edge import Session
from keras_precision.runtimes.openvino import OpenvinoSession
from keras_precision.runtimes.registry import open_runtime


def one_dimensional(shape: tuple[int, ...]) -> Any:
    """Return a net of convolutions along time, over frames of the bands."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Reshape(shape[:2]),
            *(layer for width in (48, 64, 64) for layer in (
                layers.Conv1D(width, 5, padding="same", use_bias=False), layers.BatchNormalization(), layers.ReLU(),
                layers.MaxPooling1D(),
            )),
            layers.GlobalAveragePooling1D(),
            layers.Dense(10, activation="softmax"),
        ]
    )  # fmt: skip


def transformer(shape: tuple[int, ...]) -> Any:
    """Return two blocks of attention over the frames."""
    import keras

    layers = keras.layers
    frames = keras.Input(shape)
    x = layers.Dense(48)(layers.Reshape(shape[:2])(frames))
    places = keras.ops.sin(keras.ops.arange(shape[0], dtype="float32")[:, None] / keras.ops.arange(1.0, 49.0)[None])
    x = x + keras.ops.expand_dims(places, 0)
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 12)(x, x))
        x = layers.LayerNormalization()(x + layers.Dense(48)(layers.Dense(96, activation="gelu")(x)))
    return keras.Model(frames, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


CNN = "CNN, Fashion-MNIST"
SPOKEN = {"1-D CNN, spoken digits": one_dimensional, "Transformer, spoken digits": transformer}


def models(options: argparse.Namespace) -> Any:
    """Yield name, model, calibration samples, test samples and classes."""
    for net in at_hand(options.data, options.models, options.kept, [each for each in options.nets if each == CNN]):
        yield CNN, net.model, net.calibration[:256], net.x[: options.samples], net.y[: options.samples]
    x_train, y_train, x, y = spoken(options.data)
    order = np.random.default_rng(SEED).permutation(len(x_train))
    for name, build in SPOKEN.items():
        if name not in options.nets:
            continue
        make = trained(build, options.epochs, len(x_train))
        model = make(AtHand(name, options.models, options.kept, x_train[order], y_train[order]))
        yield name, model, x_train[order][:256], x[: options.samples], y[: options.samples]


def files(model: Any, calibration: Any, samples: np.ndarray, folder: Path) -> dict[tuple[str, str], Any]:
    """Return each runtime and precision with its session; what a toolchain refuses is printed."""
    found: dict[tuple[str, str], Any] = {}
    exports: list[tuple[str, str, Callable[[Path, str], Any], Callable[[Path], Any]]] = [
        ("TFLite", ".tflite", lambda path, plan: kp.export_tflite(model, path, plan, calibration, io="float32"), Session),
        ("ONNX Runtime", ".onnx", lambda path, plan: kp.export_onnx(model, path, plan, calibration), open_runtime),
        ("OpenVINO, f32 hint", ".xml", lambda path, plan: kp.export_openvino(model, path, plan, calibration), open_runtime),
        ("OpenVINO, NNCF", ".xml", lambda path, plan: kp.export_openvino(model, path, plan, samples), open_runtime),
        (
            "OpenVINO, own hint", ".xml", lambda path, plan: kp.export_openvino(model, path, plan, calibration),
            lambda path: OpenvinoSession(path, precision=None),
        ),
    ]  # fmt: skip
    for runtime, suffix, export, opened in exports:
        for plan in ("float32", "int8"):
            if (runtime, plan) == ("OpenVINO, NNCF", "float32"):
                continue
            path = folder / f"{runtime}.{plan}{suffix}".replace(" ", "-").replace(",", "")
            try:
                export(path, plan)
            except kp.PrecisionError as error:
                print(f"{runtime} {plan}: {error}\n")
                continue
            found[runtime, plan] = opened(path)
    return found


def timed(sessions: dict[tuple[str, str], Any], x: np.ndarray, rounds: int) -> dict[tuple[str, str], np.ndarray]:
    """Return milliseconds of each file in each round."""
    samples = {key: list(session.samples(x[:8])) for key, session in sessions.items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in sessions}
    for number in range(rounds + 3):
        for key in sessions if number % 2 else reversed(sessions):
            session = sessions[key]
            began = time.perf_counter()
            for sample in samples[key]:
                session.run(sample)
            if number >= 3:
                times[key].append((time.perf_counter() - began) / len(samples[key]) * 1e3)
    return {key: np.array(each) for key, each in times.items()}


def report(name: str, model: Any, given: np.ndarray, x: np.ndarray, y: np.ndarray, options: argparse.Namespace) -> None:
    """Print the table of one model."""
    folder = options.kept / "files" / name.partition(",")[0].replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    calibration = kp.calibrate(model, given)
    expected = model.predict(x, verbose=0)
    print(f"### {name} ({model.count_params():,} parameters, {len(x)} test samples)\n")
    print(f"Keras, float32: accuracy {np.mean(expected.argmax(-1) == y):.2%}\n")
    sessions = files(model, calibration, given, folder)
    times = timed(sessions, x, options.rounds)
    base = times["TFLite", "float32"]
    print("| runtime | precision | size | latency | speedup | middle half | accuracy | agreement |")
    print("| :-- | :-- | --: | --: | --: | --: | --: | --: |")
    for (runtime, plan), session in sessions.items():
        answers = session.predict(x).argmax(-1)
        ratios = np.percentile(base / times[runtime, plan], [50, 25, 75])
        print(
            f"| {runtime} | {plan} | {session.model.size_bytes / 1e3:,.1f} kB | {np.median(times[runtime, plan]):.4f} ms | "
            f"{ratios[0]:.2f}x | {ratios[1]:.2f} to {ratios[2]:.2f} | {np.mean(answers == y):.2%} | {np.mean(answers == expected.argmax(-1)):.2%} |"
        )
    kp.export_tflite(model, folder / "small.tflite", "int8", calibration)  # integers at its edges, too
    small(folder / "small.tflite")


def small(path: Path) -> None:
    """Print what a microcontroller and an accelerator make of a file."""
    micro, npu = kp.check_micro(path), kp.check_ethos_u(path)
    print(f"\nTensorFlow Lite Micro, int8: arena {micro.value('arena_bytes')} bytes {' '.join(micro.notes)}")
    figures = {
        metric: npu.value(metric) for metric in ("npu_inferences_per_second", "npu_sram_bytes", "npu_flash_bytes")
    }
    print(
        f"\nEthos-U55-128: {figures}, {npu.value('cpu_operators')} operators on the processor {' '.join(npu.notes)}\n",
        flush=True,
    )


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--models", type=Path, required=True, help="folder of models that others have trained")
    parser.add_argument("--kept", type=Path, default=Path("results/toolchains"), help="where nets and files are kept")
    names = (CNN, *SPOKEN)
    parser.add_argument("--nets", nargs="+", choices=names, default=names, help="some of the three")
    parser.add_argument("--samples", type=int, default=2000, help="test samples at the most")
    parser.add_argument("--epochs", type=int, default=15, help="of the nets that are trained here")
    parser.add_argument("--rounds", type=int, default=100, help="of timing")
    options = parser.parse_args()
    for name, model, given, x, y in models(options):
        report(name, model, given, x, y, options)


if __name__ == "__main__":
    main()
