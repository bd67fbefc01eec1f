"""The demo: training in several precisions, validated exports, and a search, on real data."""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from keras_precision._adapters.training.callback import Callback, Logs
from keras_precision.callbacks.profiler import PrecisionProfiler
from keras_precision.core.environment import Environment
from keras_precision.core.errors import DestinationError, InputError
from keras_precision.core.formats.processor_flags import native_flags
from keras_precision.core.plan import TRAINING_PRECISIONS
from keras_precision.core.result import Result
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.optional import require
from keras_precision.export.tflite import export_tflite
from keras_precision.mixed_precision.policy import precision
from keras_precision.report.render import render
from keras_precision.verify.benchmark import benchmark
from keras_precision.verify.evaluate import evaluate

__all__ = ["run"]

_BATCH, _SIZE, _CALIBRATION, _SEED = 64, 32, 200, 7
_VALIDATION, _DROP = 300, 0.02  # images on which the search evaluates plans, and the accuracy that it may lose
_EXPORTS = ("float32", "float16", "int8")
_PATIENCE_S, _LEAST_STEPS = 20.0, 6  # per run: a format without a kernel may be a hundred times slower

_TITLES = {"mixed_bfloat16": "BF16", "mixed_float16": "FP16"}

Array = npt.NDArray[Any]


class Digits(NamedTuple):
    """Handwritten digits: images of shape (n, 32, 32, 1) between 0 and 1, and classes of shape (n,)."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


class TimeLimit(Callback):
    """Stops training ``seconds`` after the first step, but not before ``least_steps`` steps, which timing needs."""

    def __init__(self, seconds: float = _PATIENCE_S, least_steps: int = _LEAST_STEPS) -> None:
        super().__init__()
        self.seconds, self.least_steps = seconds, least_steps
        self._start: float | None = None
        self._steps = 0

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Stop after the time limit."""
        now = time.monotonic()
        self._start, self._steps = self._start or now, self._steps + 1
        if self._steps >= self.least_steps and now - self._start > self.seconds:
            self.model.stop_training = True


def run(output: str | os.PathLike[str], *, epochs: int = 8) -> tuple[Result, ...]:
    """Run the demo, print the results, and return them: three training runs, three exports, the best file of a search.

    Results, plans and models are written to the folder ``output``, which is created if needed.
    """
    if epochs < 1:
        raise InputError(f"Expected epochs >= 1. Received: {epochs}. Pass a positive number.")
    folder = _folder(output)
    console = Console(highlight=False)
    start = time.perf_counter()
    with console.status("loading TensorFlow"), capture_output("start-up"):
        data = _digits()
        require("keras", extra="tensorflow")
    console.print(
        f"Handwritten digits: {len(data.x_train)} to train, {len(data.x_test)} to test, {_SIZE} x {_SIZE} pixels.\n"
    )
    runs, model = _train_all(data, epochs, console)
    console.print(render(runs), markup=False, soft_wrap=True)
    exports = _export_all(model, data, folder, console)
    console.print(render(exports), markup=False, soft_wrap=True)
    console.print("\n" + _interpretation(runs, exports, len(data.x_test)), markup=False)
    best = _search(model, data, folder, console)
    _save(runs, [*exports, best], folder, console)
    console.print(f"Done in {time.perf_counter() - start:.0f} s.")
    return (*runs, *exports, best)


def _folder(output: str | os.PathLike[str]) -> Path:
    folder = Path(output)
    try:
        (folder / "results").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DestinationError(
            f"Expected a folder that can be created. Received: '{folder}' ({error.strerror}). Choose another with --output."
        ) from error
    return folder


def _digits() -> Digits:
    datasets = require("sklearn.datasets", extra="demo")
    images, classes = datasets.load_digits(return_X_y=True)
    # 8 x 8 pixels with 17 grey levels, enlarged four times, so that steps are long enough for timing.
    pixels = np.kron(images.reshape(-1, 8, 8) / 16.0, np.ones((4, 4))).astype(np.float32)[..., np.newaxis]
    order = np.random.default_rng(_SEED).permutation(len(pixels))
    train, test = np.split(order, [int(0.7 * len(order))])
    return Digits(pixels[train], classes[train], pixels[test], classes[test])


def _build() -> Any:
    """Return a small convolutional network: depthwise separable blocks, batch normalization, a residual sum."""
    keras = require("keras", extra="tensorflow")
    layers = keras.layers

    def normalized(x: Any, name: str) -> Any:
        # The run is too short for moving averages with the default momentum of 0.99 to converge.
        return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x))

    def block(x: Any, width: int, strides: int, name: str) -> Any:
        depthwise = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False, name=f"{name}_depthwise")
        x = normalized(depthwise(x), f"{name}_depthwise")
        return normalized(layers.Conv2D(width, 1, use_bias=False, name=f"{name}_pointwise")(x), f"{name}_pointwise")

    image = keras.Input((_SIZE, _SIZE, 1), name="image")
    x = normalized(layers.Conv2D(64, 3, strides=2, padding="same", use_bias=False, name="stem")(image), "stem")
    x = layers.Add(name="residual")([x, block(x, 64, 1, "block_1")])
    x = block(x, 128, 2, "block_2")
    x = layers.GlobalAveragePooling2D(name="pool")(block(x, 128, 1, "block_3"))
    # Under mixed precision, softmax and loss stay in float32, for their range and precision.
    output = layers.Dense(10, activation="softmax", dtype="float32", name="head")(x)
    return keras.Model(image, output, name="digits")


def _progress(console: Console, unit: str) -> Progress:
    """Return a progress bar that counts in ``unit``."""
    counted = TextColumn(f"{unit} {{task.completed}} of {{task.total}}")
    return Progress(TextColumn("{task.description:<24}"), BarColumn(), counted, TimeElapsedColumn(), console=console)


def _train_all(data: Digits, epochs: int, console: Console) -> tuple[list[Result], Any]:
    """Train in all precisions from the same initial weights; return the results and the float32 model."""
    keras = require("keras", extra="tensorflow")
    results: list[Result] = []
    baseline: Any = None
    with _progress(console, "epoch") as bar:
        for name in TRAINING_PRECISIONS:
            task = bar.add_task(f"training in {name}", total=epochs)
            keras.utils.set_random_seed(_SEED)
            with precision(name):
                model = _build()
            model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
            profiler = PrecisionProfiler(name, verbose=0)
            advance = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_, task=task: bar.advance(task))
            model.fit(
                data.x_train, data.y_train, batch_size=_BATCH, epochs=epochs, verbose=0,
                validation_data=(data.x_test, data.y_test), callbacks=[profiler, advance, TimeLimit()],
            )  # fmt: skip
            results.append(profiler.result)
            baseline = baseline or model  # the other models are released, for their memory
    return results, baseline


def _export_all(model: Any, data: Digits, folder: Path, console: Console) -> list[Result]:
    """Export the float32 model in all formats, and evaluate every file on the whole test set."""
    expected = model.predict(data.x_test, verbose=0)
    results = []
    with _progress(console, "file") as bar:
        task = bar.add_task("exporting and checking", total=len(_EXPORTS))
        for name in _EXPORTS:
            path = folder / f"model.{name}.tflite"
            exported = export_tflite(model, path, name, representative_dataset=data.x_train[:_CALIBRATION])
            evaluated = evaluate(path, data.x_test, data.y_test, reference=expected)
            results.append(exported.joined(evaluated).joined(benchmark(path, data.x_test)))
            bar.advance(task)
    return results


def _search(model: Any, data: Digits, folder: Path, console: Console) -> Result:
    """Find the smallest file within the acceptable accuracy drop, on validation images that are not test images."""
    with capture_output("start-up"):
        from keras_precision.search.objective.budget import Budget
        from keras_precision.search.tuner import PrecisionTuner

    validation = slice(-_VALIDATION, None)
    with tempfile.TemporaryDirectory() as trials, console.status("selecting a precision per layer"):
        tuner = PrecisionTuner(
            model,
            data.x_train[:_CALIBRATION],
            (data.x_train[validation], data.y_train[validation]),
            ("int8", "int4"),
            budget=Budget(max_metric_drop=_DROP),
            metric="accuracy",
            directory=trials,
            verbose=False,
        )
        tuner.search()
        path = folder / "model.best.tflite"
        exported, plan = tuner.export_best(path), tuner.best_plan
    evaluated = evaluate(path, data.x_test, data.y_test, reference=model)
    best = replace(exported.joined(evaluated), name="tflite:best")
    low = [path for path, precision in plan.layers.items() if precision == "int4"]
    plan.save(folder / "plan.best.json")
    console.print(
        f"\nA precision per layer: of {len(tuner.oracle.trials)} files that were exported and run, the smallest that loses at "
        f"most {_DROP:.1%} of accuracy on {_VALIDATION} images has {best.value('size_bytes') / 1e3:.1f} kB, with "
        f"{', '.join(low) or 'no layer'} in int4; its test accuracy is {best.value('accuracy'):.2%}.",
        markup=False,
    )
    return best


def _save(runs: Sequence[Result], exports: Sequence[Result], folder: Path, console: Console) -> None:
    for result in (*runs, *exports):
        result.save(folder / "results" / f"{result.name.replace(':', '-')}.json")
    plan = exports[_EXPORTS.index("int8")].plan
    if plan is not None:
        plan.save(folder / "plan.json")
    console.print(
        f"\nWritten: {folder}/results/*.json, {folder}/plan.json, {folder}/plan.best.json, {folder}/model.int8.tflite, {folder}/model.best.tflite",
        markup=False,
        soft_wrap=True,
    )


def _interpretation(runs: Sequence[Result], exports: Sequence[Result], tested: int) -> str:
    """Return a paragraph that interprets the results on this machine."""
    environment = runs[0].environment
    sentences = [f"On this machine ({environment.device}, {environment.cores} cores, {environment.backend}):"]
    sentences += [_about_training(runs[0], run, environment) for run in runs[1:]]
    sentences.append("These are single runs: a difference of a few percent may be chance.")
    full, integer = exports[0], exports[-1]
    lost = round((full.value("accuracy") - integer.value("accuracy")) * tested)
    changed = round((1 - integer.value("agreement")) * tested)
    smaller = full.value("size_bytes") / integer.value("size_bytes")
    faster = _compared(full.value("latency_ms") / integer.value("latency_ms"))
    sentences.append(
        f"The INT8 file is {smaller:.1f} times smaller than the FP32 one, and {faster} that one in the same "
        f"interpreter; of {tested} test images, {changed} have another prediction than in the Keras model, and {_net(lost)}."
    )
    if integer.notes:
        sentences.append(f"Not everything is integer: {'; '.join(integer.notes)}.")
    return " ".join(sentences)


def _about_training(baseline: Result, result: Result, environment: Environment) -> str:
    ratio = baseline.value("step_time_ms") / result.value("step_time_ms")
    title, has = _TITLES[result.name], native_flags(result.name, environment.cpu_flags)
    if not environment.backend or environment.device != environment.processor:
        why = f"on {environment.device}"
    elif has and ratio < 0.95:
        why = (
            f"this processor computes in {title} ({', '.join(has)}), but in so small a network, casts and kernels "
            f"without a {title} version can cost more than that saves"
        )
    elif has:
        why = f"this processor computes in {title} ({', '.join(has)})"
    else:
        why = f"this processor has no {title} arithmetic, so that {title} is emulated"
    steps, planned = result.value("batches"), baseline.value("batches")
    cut = (
        f" It was stopped after {steps} of {planned} steps, so that its accuracy is meaningless."
        if steps < planned
        else ""
    )
    return f"{result.name} trained {_compared(ratio)} float32: {why}.{cut}"


def _compared(ratio: float) -> str:
    """Return a speedup in words; within 5 %, speeds count as equal."""
    if ratio > 1.05:
        return f"{ratio:.1f} times as fast as"
    if ratio < 0.95:
        return f"{1 / ratio:.1f} times slower than"
    return "as fast, within 5 %, as"


def _net(lost: int) -> str:
    if lost == 0:
        return "as many are correct"
    return f"{abs(lost)} {'fewer' if lost > 0 else 'more'} are correct"
