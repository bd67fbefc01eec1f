"""ValidationSet: the data on which plans are evaluated, read from any form that ``fit`` takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import adapter_of
from keras_precision._adapters.data.labels import read_labelled
from keras_precision._adapters.data.samples import is_in_memory, read_samples
from keras_precision.core.errors import DataError, InputError
from keras_precision.core.model_inputs import Input
from keras_precision.search.objective.score import Score

__all__ = ["ValidationSet", "check_count", "read_validation_set"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ValidationSet:
    """Samples by input name, of shape (n, ...), with labels of shape (n, ...) and their metric, if there are any."""

    samples: Mapping[str, Array]
    labels: Array | None = None
    score: Score | None = None

    @property
    def count(self) -> int:
        """The number of samples."""
        return len(next(iter(self.samples.values())))


def check_count(samples: Any) -> int | None:
    """Return the maximum number of samples, None for all, or raise ``InputError`` if it is not a positive integer."""
    if samples is not None and (not isinstance(samples, int | np.integer) or samples < 1):
        raise InputError(f"Expected samples >= 1, or None for all. Received: {samples!r}.")
    return None if samples is None else int(samples)


def read_validation_set(model: Any, data: Any, score: Score | None, max_samples: int | None = None) -> ValidationSet:
    """Return validation data that fit the model, at most ``max_samples`` of them, evenly spread.

    The data are ``(samples, labels)`` or ``(samples, labels, weights)`` of arrays, an iterable of such batches, or,
    without a metric, samples alone as for ``kp.calibrate``. Weights are dropped, as Keras's metrics do.
    """
    inputs = adapter_of(model).inputs(model)
    if score is not None and len(model.outputs) != 1:
        raise DataError(
            f"Expected a model with one output for the metric '{score.name}'. Received: '{model.name}' with {len(model.outputs)}. "
            "Search by the divergence."
        )
    samples, labels = _read(data, inputs, score)
    count = len(next(iter(samples.values())))
    outputs = _output_labels(labels, score, count)
    if outputs is not None and len(outputs) != count:
        raise DataError(
            f"Expected as many labels as samples in validation_data. Received: {len(outputs)} labels for {count} samples. "
            "Pass one label per sample."
        )
    if max_samples is not None and max_samples < count:
        rows = np.linspace(0, count - 1, max_samples).astype(int)
        samples = {name: values[rows] for name, values in samples.items()}
        outputs = None if outputs is None else outputs[rows]
    return ValidationSet(samples, outputs, score)


def _read(data: Any, inputs: Sequence[Input], score: Score | None) -> tuple[dict[str, Array], Any]:
    """Return the samples by input name, and the labels in the form of the data."""
    if _is_labelled(data, inputs):
        _check_weights(score, len(data))
        return read_samples(data[0], inputs), data[1]
    if score is None:
        return read_samples(data, inputs), None
    if is_in_memory(data):
        raise _unlabelled(score, "samples alone")
    return read_labelled(data, None, inputs)


def _output_labels(data: Any, score: Score | None, count: int) -> Array | None:
    """Return the labels of the one output, which may come as a dict or a list with one entry."""
    if score is None:
        return None
    if data is None:
        raise _unlabelled(score, "None for labels")
    parts = list(data.values()) if isinstance(data, Mapping) else data
    if isinstance(data, Mapping) or _is_per_output(parts, count):
        if len(parts) != 1:
            raise DataError(
                f"Expected the labels of one output for the metric '{score.name}'. Received: those of {len(parts)}. "
                "Search by the divergence."
            )
        data = parts[0]
    labels = np.asarray(data)
    if labels.ndim == 0:
        raise DataError(
            f"Expected labels of shape ({count}, ...). Received: {data!r}. Pass an array with one label per sample."
        )
    return labels


def _is_per_output(parts: Any, count: int) -> bool:
    """Whether a list has an array per output, not a label per sample."""
    if not isinstance(parts, list | tuple) or len(parts) == count:
        return False
    return all(len(getattr(part, "shape", ())) >= 1 and len(part) == count for part in parts)


def _unlabelled(score: Score, received: str) -> DataError:
    return DataError(
        f"Expected labels for the metric '{score.name}'. Received: {received}. Pass validation_data=(x, y), or "
        "search by the divergence from the float model, which needs no labels."
    )


def _is_labelled(data: Any, inputs: Sequence[Input]) -> bool:
    """Whether a tuple has samples and labels, not one array per input."""
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        return False
    return len(inputs) == 1 or isinstance(data[0], Mapping | list | tuple)


def _check_weights(score: Score | None, length: int) -> None:
    if length > 2 and score is not None and score.name == "loss":
        raise DataError(
            "Expected validation_data=(x, y) for the loss, which is computed without sample weights. Received: (x, y, weights). "
            "Leave the weights out."
        )
