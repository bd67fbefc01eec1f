"""compare_exports: one model in several deployed forms, compared in size, latency and accuracy."""

import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import adapter_of
from keras_precision._adapters.data.samples import read_samples
from keras_precision._adapters.rebuild import in_float32
from keras_precision.comparison.comparison import Comparison
from keras_precision.comparison.effect import pack_correct
from keras_precision.core.errors import DestinationError, InputError, UnknownPrecisionError, nearest
from keras_precision.core.formats.deployment import supported_precisions
from keras_precision.core.plan import TRAINING_PRECISIONS
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.progress import progress
from keras_precision.core.system.timing import spread, time_calls
from keras_precision.experiments.deployed_models import (
    EXPORTS,
    DeployedModel,
    TimedCaller,
    deployed_file,
    deployed_model,
    single_output,
)
from keras_precision.experiments.fingerprints import data_hash
from keras_precision.experiments.interleaving import InterleavedTimes, interleave
from keras_precision.scoring.scores import accuracy, agreement, predicted_classes
from keras_precision.verify.targets import open_target

__all__ = ["compare_exports"]

_TARGETS = (*EXPORTS, "keras")
_SOURCE = (
    "median of all calls of one sample; all models were opened {count} times, and interleaved (ABBA); "
    "a speedup has one value per opening, from the fastest tenth of the calls in a block"
)


def compare_exports(
    model: Any,
    x: Any,
    y: npt.ArrayLike,
    precisions: Sequence[str] = ("float32", "float16", "int8"),
    targets: Sequence[str] = ("tflite",),
    *,
    representative_dataset: Any = None,
    folder: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    openings: int = 5,
    resolution: float = 0.02,
    timing_seconds: float = 30.0,
    margin: float | None = None,
    verbose: bool | None = None,
) -> Comparison:
    """Deploy a classifier in several precisions, and report which differences are significant.

    All models predict the same samples, and accuracies are compared by McNemar's test on them. Latencies are of one
    sample a call, measured in interleaved blocks (ABBA).

    Args:
        model: A built functional or sequential model with one output.
        x: Samples: an array of shape (n, ...), or one array per input as a tuple or dict.
        y: Class numbers, shape (n,) or (n, 1), or one-hot.
        precisions: Number formats of files; Keras policies, for the target ``"keras"``, which takes all three where none
            but float32 is named. The first is the baseline.
        targets: ``"tflite"``, ``"onnx"``, ``"openvino"``, ``"keras"`` (the model itself); the first has the
            baseline. A target skips precisions that it does not have.
        representative_dataset: Samples for the calibration of integer ranges, as for ``kp.export_tflite``; None: ``x``.
        folder: Where the files remain, as ``precision.tflite`` and the like; None: they are removed.
        batch_size: Samples a call of the Keras model, for the throughput; a file has one.
        openings: How often a model is opened again for its timing; a speedup is an interval over these.
        resolution: The target half width of that interval: 0.02 is 2 %.
        timing_seconds: The most seconds of timing, all openings together.
        margin: The loss of accuracy that still counts as equal; None for 0.01.
        verbose: Whether to draw a progress bar; None: on a terminal.

    Returns:
        A comparison of results named ``target:precision``, with ``size_bytes``, ``latency_ms``, ``accuracy``,
        ``agreement`` with the model, ``samples_per_second`` and ``class_accuracy``.

    Raises:
        InputError: A target or a precision is unknown, or a number is out of range.
        DataError: Samples or labels do not fit the model.
        ExportError: A file cannot be exported.

    Example:
        >>> comparison = compare_exports(model, x_test, y_test, ("float32", "int8"), timing_seconds=0.1, openings=2)
        >>> comparison.result("tflite:int8").value("agreement")
        1.0
    """
    requested = _requested_models(precisions, targets)
    numbers = {
        "batch_size": batch_size,
        "openings": openings,
        "resolution": resolution,
        "timing_seconds": timing_seconds,
    }
    for name, number in numbers.items():
        if number <= 0:
            raise InputError(f"Expected {name} > 0. Received: {number}.")
    if folder is not None and not os.path.isdir(folder):
        raise DestinationError(f"Expected a folder that exists. Received: '{folder}'. Create it first.")
    representative = x if representative_dataset is None else representative_dataset
    with (
        tempfile.TemporaryDirectory() as temporary,
        progress("comparing", "forms", len(requested), verbose=verbose) as advance,
    ):
        models: list[DeployedModel] = []
        for target, precision in requested:
            models.append(_deployed(target, precision, (model, x, representative), Path(folder or temporary)))
            advance(1)
        scored = [_ScoredModel(deployed, y, batch_size) for deployed in models]
        timings = [_timed(models, resolution / 2, timing_seconds / openings) for _ in range(openings)]
    context = _ComparisonContext(
        _reference(model, x, scored), timings, secrets.token_hex(4), data_hash((np.asarray(y),) * 2)
    )
    results = [entry.result(context) for entry in scored]
    return Comparison(results[0], results[1:], metric="accuracy", margin=margin)


def _deployed(target: str, precision: str, task: tuple[Any, Any, Any], folder: Path) -> DeployedModel:
    model, x, representative = task
    if target == "keras":
        return deployed_model(model, precision, x)
    return deployed_file(target, model, precision, x, representative, folder)


def _timed(models: Sequence[DeployedModel], resolution: float, seconds: float) -> InterleavedTimes:
    callers = {model.name: TimedCaller(model.caller()) for model in models}
    return interleave(callers, resolution=resolution, seconds=seconds)


@dataclass(frozen=True)
class _ComparisonContext:
    """What all models of a comparison share: the original model's predictions, and the times by opening.

    Attributes:
        session: The name of the timing session.
        order: A hash of the labels.
    """

    reference: npt.NDArray[np.generic]
    timings: Sequence[InterleavedTimes]
    session: str
    order: str


class _ScoredModel:
    """A deployed model with its predictions and their accuracy."""

    def __init__(self, model: DeployedModel, y: npt.ArrayLike, batch_size: int) -> None:
        self.model, self.predictions = model, model.predictions()
        self._labels = np.asarray(y)
        self.accuracy = accuracy(self._labels, self.predictions)  # raises for labels that do not fit
        call, self._size = model.batch_caller(batch_size)
        self._batches = spread(time_calls(call, warmup=2, min_calls=10, min_seconds=0.0))

    def result(self, context: _ComparisonContext) -> Result:
        """Return scores and times of the model."""
        rows = [*self._scores(context.reference, context.order), *self._times(context.timings, context.session)]
        empty = self.model.empty
        source = {"latency_ms": _SOURCE.format(count=len(context.timings))}
        return Result(empty.name, tuple(rows), empty.environment.with_sources(source), empty.plan, empty.notes)

    def _scores(self, reference: npt.NDArray[np.generic], order: str) -> Iterator[Measurement]:
        name = self.model.name
        yield Measurement(name, "size_bytes", self.model.size)
        yield Measurement(name, "accuracy", self.accuracy)
        yield Measurement(name, "agreement", agreement(reference, self.predictions))
        classes = self._labels.argmax(axis=-1) if self._labels.shape == self.predictions.shape else self._labels
        classes = classes.reshape(len(self.predictions))
        correct = predicted_classes(self.predictions).reshape(len(classes)) == classes
        yield Measurement(name, "answers_right", pack_correct(correct))
        yield Measurement(name, "data_order", order)
        for number in np.unique(classes):
            yield Measurement(f"class {number:g}", "class_accuracy", float(correct[classes == number].mean()))

    def _times(self, timings: Sequence[InterleavedTimes], session: str) -> Iterator[Measurement]:
        name = self.model.name
        times = spread(time for opening in timings for time in opening.steps[name])
        yield Measurement(name, "latency_ms", times.median)
        yield Measurement(name, "latency_p95_ms", times.p95)
        yield Measurement(name, "latency_samples", times.count)
        yield Measurement(name, "samples_per_second", self._size * 1e3 / self._batches.median)
        yield Measurement(name, "batch_size", self._size)
        yield Measurement(name, "session", session)
        for number, opening in enumerate(timings):
            for index, value in enumerate(opening.rounds[name]):
                yield Measurement(f"process {number}", "latency_ms", value, index)


def _reference(model: Any, x: Any, scored: Sequence[_ScoredModel]) -> npt.NDArray[np.generic]:
    """Return the predictions of the original model in float32."""
    known = [entry.predictions for entry in scored if entry.model.name == "keras:float32"]
    if known:
        return known[0]
    adapter = adapter_of(model)
    original = open_target(in_float32(adapter, model))
    samples = list(read_samples(x, adapter.inputs(model)).values())
    return single_output(original.predict(samples, 32), original.name)


def _requested_models(precisions: Sequence[str], targets: Sequence[str]) -> list[tuple[str, str]]:
    """Return target and precision of every model, the baseline first."""
    names, places = [[value] if isinstance(value, str) else list(value) for value in (precisions, targets)]
    for target in places:
        if target not in _TARGETS:
            hint = nearest(str(target), _TARGETS)
            raise InputError(f"Expected targets among {', '.join(_TARGETS)}. Received: {target!r}. {hint}".rstrip())
    policies = [name for name in names if name in TRAINING_PRECISIONS]
    mixed = any(policy != "float32" for policy in policies)
    by_target = {
        "keras": policies if mixed else list(TRAINING_PRECISIONS),
        **{target: [name for name in names if name in supported_precisions(target)] for target in EXPORTS},
    }
    requested = [(target, name) for target in dict.fromkeys(places) for name in dict.fromkeys(by_target[target])]
    known = [
        *(TRAINING_PRECISIONS if "keras" in places else ()),
        *(name for target in EXPORTS if target in places for name in supported_precisions(target)),
    ]
    for precision in names:
        if precision not in known:
            raise UnknownPrecisionError(
                f"Expected precisions that {' or '.join(places)} can have: {', '.join(dict.fromkeys(known))}. "
                f"Received: {precision!r}. {nearest(str(precision), known)}".rstrip()
            )
    if not requested:
        raise InputError(f"Expected at least one precision and one target. Received: {names} and {places}.")
    return requested
