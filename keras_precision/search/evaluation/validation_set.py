"""The data that plans are judged on, in any form that ``fit`` takes for its validation data."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import adapter_of
from keras_precision._adapters.adapter import Input
from keras_precision._adapters.data.labels import joined, stream_labelled
from keras_precision._adapters.data.samples import at_once, read_samples
from keras_precision.core.errors import DataError, InputError
from keras_precision.search.evaluation.evaluator import Held
from keras_precision.search.objective.score import Score

__all__ = ["check_count", "held_out"]

Array = npt.NDArray[Any]


def check_count(samples: Any) -> int | None:
    """Return how many samples are used at most, if that can be.

    Args:
        samples: The number; None for all.

    Returns:
        The same.

    Raises:
        InputError: It is no positive number.
    """
    if samples is not None and (not isinstance(samples, int | np.integer) or samples < 1):
        raise InputError(f"Expected samples >= 1, or None for all. Received: {samples!r}.")
    return None if samples is None else int(samples)


def held_out(model: Any, data: Any, score: Score | None, most: int | None = None) -> Held:
    """Return the data that plans are judged on, checked.

    Args:
        model: The model.
        data: ``(samples, labels)`` or ``(samples, labels, weights)`` of arrays; or what yields such batches; or, where
            no metric is asked for, samples alone, in any form that ``kp.calibrate`` takes. For a model of several
            inputs, samples with labels are one list, tuple or dict.
        score: The metric of them; None where none is asked for, and labels are of no use.
        most: Samples that are kept, evenly spread; None for all.

    Returns:
        The data. Weights are dropped, as Keras's metrics do.

    Raises:
        DataError: They do not fit the model, or labels are missing for a metric.
    """
    inputs = adapter_of(model).inputs(model)
    if score is not None and len(model.outputs) != 1:
        raise DataError(
            f"Expected a model with one output for the metric '{score.name}'. Received: '{model.name}' with {len(model.outputs)}. "
            "Search by the divergence."
        )
    samples, labels = _read(data, inputs, score)
    count = len(next(iter(samples.values())))
    truth = _labels(labels, score, count)
    if truth is not None and len(truth) != count:
        raise DataError(
            f"Expected as many labels as samples in validation_data. Received: {len(truth)} labels for {count} samples."
        )
    if most is not None and most < count:
        kept = np.linspace(0, count - 1, most).astype(int)
        samples = {name: values[kept] for name, values in samples.items()}
        truth = None if truth is None else truth[kept]
    return Held(samples, truth, score)


def _read(data: Any, inputs: Sequence[Input], score: Score | None) -> tuple[dict[str, Array], Any]:
    """The samples by input, and the labels as they are given."""
    if _is_labelled(data, inputs):
        _check_weights(score, len(data))
        return read_samples(data[0], inputs), data[1]
    if score is None:
        return read_samples(data, inputs), None
    if at_once(data):
        raise _unlabelled(score, "samples alone")
    pieces = list(stream_labelled(data, inputs))
    arrays = [[piece[number] for piece, _ in pieces] for number in range(len(inputs))]
    samples = {each.name: np.concatenate(found) for each, found in zip(inputs, arrays, strict=True)}
    return samples, joined([labels for _, labels in pieces])


def _labels(given: Any, score: Score | None, count: int) -> Array | None:
    """The labels of the one output, which may come as a dict or a list of one."""
    if score is None:
        return None
    if given is None:
        raise _unlabelled(score, "None for labels")
    parts = list(given.values()) if isinstance(given, Mapping) else given
    if isinstance(given, Mapping) or _is_of_outputs(parts, count):
        if len(parts) != 1:
            raise DataError(
                f"Expected the labels of one output for the metric '{score.name}'. Received: those of {len(parts)}. "
                "Search by the divergence."
            )
        given = parts[0]
    labels = np.asarray(given)
    if labels.ndim == 0:
        raise DataError(f"Expected labels of shape ({count}, ...). Received: {given!r}.")
    return labels


def _is_of_outputs(parts: Any, count: int) -> bool:
    """Whether a list has an array for each output, and not a label for each sample."""
    if not isinstance(parts, list | tuple) or len(parts) == count:
        return False
    return all(len(getattr(each, "shape", ())) >= 1 and len(each) == count for each in parts)


def _unlabelled(score: Score, received: str) -> DataError:
    return DataError(
        f"Expected labels for the metric '{score.name}'. Received: {received}. Pass validation_data=(x, y), or "
        "search by the divergence from the float model, which needs none."
    )


def _is_labelled(data: Any, inputs: Sequence[Input]) -> bool:
    """Whether a tuple is of samples and labels, and not of one array for each input."""
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        return False
    return len(inputs) == 1 or isinstance(data[0], Mapping | list | tuple)


def _check_weights(score: Score | None, length: int) -> None:
    if length > 2 and score is not None and score.name == "loss":
        raise DataError(
            "Expected validation_data=(x, y) for the loss, which a file has of all samples alike. Received: (x, y, weights). "
            "Leave the weights out."
        )
