"""compare_exports: one model in several deployed forms, compared in size, speed and answers."""

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
from keras_precision.comparison.comparison import Comparison
from keras_precision.comparison.effect import pack_answers
from keras_precision.core.errors import DestinationError, InputError, UnknownPrecisionError, nearest
from keras_precision.core.formats.deployment import precisions_of
from keras_precision.core.plan import DEPLOYMENT_PRECISIONS, TRAINING_PRECISIONS
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.progress import progress
from keras_precision.core.system.timing import spread, time_calls
from keras_precision.experiments.deployed_forms import (
    RUNTIME_EXPORTS,
    Answering,
    KerasForm,
    RuntimeForm,
    TfliteForm,
    Turner,
)
from keras_precision.experiments.fingerprints import data_hash
from keras_precision.experiments.interleaving import Turns, take_turns
from keras_precision.scoring.scores import accuracy, agreement, answers

__all__ = ["compare_exports"]

_TARGETS = ("tflite", *RUNTIME_EXPORTS, "keras")
_SOURCE = (
    "median of all calls of one sample; {count} times each form was opened anew, and they took turns, forth and back; "
    "a speedup has one figure for each of these, from the fastest tenth of the calls in each turn"
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
    """Deploy a classifier in several precisions, and say what can be shown of the difference.

    Every form answers the same samples, and accuracies are compared by McNemar's test on them. Latencies are of one
    sample a call, measured by turns, forth and back.

    Args:
        model: A built functional or sequential model with one output.
        x: Samples: an array of shape (n, ...), or one array per input as a tuple or dict.
        y: Class numbers, shape (n,) or (n, 1), or one-hot.
        precisions: Number formats of files; Keras policies, for the target ``"keras"``, which takes all three where none
            but float32 is named. The first is the baseline.
        targets: ``"tflite"``, ``"onnx"``, ``"openvino"``, ``"keras"`` (the model itself); the first has the
            baseline. Each takes those of the precisions that it has.
        representative_dataset: Samples to choose integer ranges from, as for ``kp.export_tflite``; None: ``x``.
        folder: Where the files stay, as ``precision.tflite`` and the like; None: they are removed.
        batch_size: Samples a call of the Keras model, for the throughput; a file takes one.
        openings: How often each form is opened anew for its turns; a speedup is an interval over these.
        resolution: How narrow that interval is to be to each side.
        timing_seconds: Seconds of turns at the most, all openings together.
        margin: How much accuracy may be lost and count as kept; None for 0.01.
        verbose: Whether to draw a progress bar; None: on a terminal.

    Returns:
        A comparison of results named ``target:precision``, with ``size_bytes``, ``latency_ms``, ``accuracy``,
        ``agreement`` with the model, ``samples_per_second`` and ``class_accuracy``.

    Raises:
        InputError: A target or a precision is unknown, or a number is out of range.
        DataError: Samples or labels do not fit the model.
        ExportError: A file cannot be made.

    Example:
        >>> comparison = compare_exports(model, x_test, y_test, ("float32", "int8"), timing_seconds=0.1, openings=2)
        >>> comparison.result("tflite:int8").value("agreement")
        1.0
    """
    wanted = _wanted(precisions, targets)
    numbers = {
        "batch_size": batch_size,
        "openings": openings,
        "resolution": resolution,
        "timing_seconds": timing_seconds,
    }
    for name, number in numbers.items():
        if number <= 0:
            raise InputError(f"Expected {name} > 0. Received: {number}.")
    if folder is not None and not Path(folder).is_dir():
        raise DestinationError(f"Expected a folder that exists. Received: '{folder}'. Create it first.")
    given = x if representative_dataset is None else representative_dataset
    with (
        tempfile.TemporaryDirectory() as temporary,
        progress("comparing", "forms", len(wanted), verbose=verbose) as advance,
    ):
        forms: list[Answering] = []
        for target, precision in wanted:
            forms.append(_form(target, precision, (model, x, given), Path(folder or temporary)))
            advance(1)
        scored = [_Scored(form, y, batch_size) for form in forms]
        turns = [_turns(forms, resolution / 2, timing_seconds / openings) for _ in range(openings)]
    told = _Told(_reference(model, x, scored), turns, secrets.token_hex(4), data_hash((np.asarray(y),) * 2))
    results = [each.result(told) for each in scored]
    return Comparison(results[0], results[1:], metric="accuracy", margin=margin)


def _form(target: str, precision: str, made_of: tuple[Any, Any, Any], folder: Path) -> Answering:
    model, x, given = made_of
    if target in RUNTIME_EXPORTS:
        return RuntimeForm(target, model, precision, x, given, folder)
    return KerasForm(model, precision, x) if target == "keras" else TfliteForm(model, precision, x, given, folder)


def _turns(forms: Sequence[Answering], resolution: float, seconds: float) -> Turns:
    return take_turns({form.name: Turner(form.caller()) for form in forms}, resolution=resolution, seconds=seconds)


@dataclass(frozen=True)
class _Told:
    """What the results of all forms rest on.

    Attributes:
        reference: Answers of the model as it was given.
        turns: One for each opening.
        session: A name for these.
        order: A hash of the labels.
    """

    reference: npt.NDArray[np.generic]
    turns: Sequence[Turns]
    session: str
    order: str


class _Scored:
    """What a form answered, and what these answers are worth."""

    def __init__(self, form: Answering, y: npt.ArrayLike, batch_size: int) -> None:
        self.form, self.predictions = form, form.answers()
        self._labels = np.asarray(y)
        self.accuracy = accuracy(self._labels, self.predictions)  # refuses labels that do not fit
        call, self._size = form.batch_caller(batch_size)
        self._batches = spread(time_calls(call, warmup=2, min_calls=10, min_seconds=0.0))

    def result(self, told: _Told) -> Result:
        """Return all that is known of the form."""
        rows = [*self._scores(told.reference, told.order), *self._times(told.turns, told.session)]
        empty = self.form.result()
        source = {"latency_ms": _SOURCE.format(count=len(told.turns))}
        return Result(empty.name, tuple(rows), empty.environment.with_sources(source), empty.plan, empty.notes)

    def _scores(self, reference: npt.NDArray[np.generic], order: str) -> Iterator[Measurement]:
        name = self.form.name
        yield Measurement(name, "size_bytes", self.form.size)
        yield Measurement(name, "accuracy", self.accuracy)
        yield Measurement(name, "agreement", agreement(reference, self.predictions))
        kinds = self._labels.argmax(axis=-1) if self._labels.shape == self.predictions.shape else self._labels
        kinds = kinds.reshape(len(self.predictions))
        right = answers(self.predictions).reshape(len(kinds)) == kinds
        yield Measurement(name, "answers_right", pack_answers(right))
        yield Measurement(name, "data_order", order)
        for kind in np.unique(kinds):
            yield Measurement(f"class {kind:g}", "class_accuracy", float(right[kinds == kind].mean()))

    def _times(self, turns: Sequence[Turns], session: str) -> Iterator[Measurement]:
        name = self.form.name
        times = spread(time for each in turns for time in each.steps[name])
        yield Measurement(name, "latency_ms", times.median)
        yield Measurement(name, "latency_p95_ms", times.p95)
        yield Measurement(name, "latency_samples", times.count)
        yield Measurement(name, "samples_per_second", self._size * 1e3 / self._batches.median)
        yield Measurement(name, "batch_size", self._size)
        yield Measurement(name, "session", session)
        for number, each in enumerate(turns):
            for index, value in enumerate(each.rounds[name]):
                yield Measurement(f"process {number}", "latency_ms", value, index)


def _reference(model: Any, x: Any, scored: Sequence[_Scored]) -> npt.NDArray[np.generic]:
    """The answers of the model as it was given."""
    known = [each.predictions for each in scored if each.form.name == "keras:float32"]
    return known[0] if known else KerasForm(adapter_of(model).in_float32(model), "float32", x).answers()


def _wanted(precisions: Sequence[str], targets: Sequence[str]) -> list[tuple[str, str]]:
    """Target and precision of each form, the baseline first."""
    given, places = [[each] if isinstance(each, str) else list(each) for each in (precisions, targets)]
    for target in places:
        if target not in _TARGETS:
            hint = nearest(str(target), _TARGETS)
            raise InputError(f"Expected targets among {', '.join(_TARGETS)}. Received: {target!r}. {hint}".rstrip())
    policies = [each for each in given if each in TRAINING_PRECISIONS]
    mixed = any(each != "float32" for each in policies)
    takes = {
        "tflite": [each for each in given if each in DEPLOYMENT_PRECISIONS],
        "keras": policies if mixed else list(TRAINING_PRECISIONS),
        **{target: [each for each in given if each in precisions_of(target)] for target in RUNTIME_EXPORTS},
    }
    found = [(target, precision) for target in dict.fromkeys(places) for precision in dict.fromkeys(takes[target])]
    known = [
        *(DEPLOYMENT_PRECISIONS if "tflite" in places else ()),
        *(TRAINING_PRECISIONS if "keras" in places else ()),
        *(each for target in RUNTIME_EXPORTS if target in places for each in precisions_of(target)),
    ]
    for precision in given:
        if precision not in known:
            raise UnknownPrecisionError(
                f"Expected precisions that {' or '.join(places)} can have: {', '.join(dict.fromkeys(known))}. "
                f"Received: {precision!r}. {nearest(str(precision), known)}".rstrip()
            )
    if not found:
        raise InputError(f"Expected at least one precision and one target. Received: {given} and {places}.")
    return found
