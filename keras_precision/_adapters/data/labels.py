"""Samples with their labels, from anything that ``fit`` takes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.adapter import Input
from keras_precision._adapters.data.samples import at_once, checked, elements_of, inputs_of
from keras_precision.core.errors import DataError

__all__ = ["Labels", "joined", "stream_labelled"]

Array = npt.NDArray[Any]
Labels = Any
"""An array of shape (n, ...), or one for each output as a list, a tuple or a dict."""


def stream_labelled(data: Any, inputs: Sequence[Input] | None) -> Iterator[tuple[Any, Labels]]:
    """Read samples and labels piece by piece.

    Args:
        data: A ``tf.data`` dataset, ``PyDataset``, torch ``DataLoader`` or generator whose elements
            are batches (samples, labels), or (samples, labels, weights), as for ``fit``.
        inputs: The inputs of the model; None where they are not known, and not checked.

    Yields:
        One array of shape (n, ...) per input, or the samples as they came where the inputs are not
        known; and the labels; at least once. Weights are dropped.

    Raises:
        DataError: There are no labels, no samples, or they do not fit the model.
    """
    if data is None or at_once(data):
        raise DataError(
            f"Expected labels: y, or a dataset of batches (samples, labels) as x. Received: y=None, and x of type {type(data).__name__}."
        )
    empty = True
    for element in elements_of(data):
        if not isinstance(element, tuple | list) or len(element) not in (2, 3):
            raise DataError(
                f"Expected batches (samples, labels), or (samples, labels, weights). Received: {_described(element)}. "
                "Pass the labels as y."
            )
        samples = element[0] if inputs is None else _samples(element[0], inputs)
        first = next(_leaves(samples), ())
        if len(first):
            empty = False
            yield samples, _batched(element[1], len(first))
    if empty:
        raise DataError("Expected at least one sample. Received: a dataset that yields nothing. Was it used up before?")


def joined(parts: Sequence[Labels]) -> Labels:
    """Return the labels of several pieces as those of one.

    Args:
        parts: Labels of one structure.

    Returns:
        The same structure.
    """
    first = parts[0]
    if isinstance(first, Mapping):
        return {name: joined([part[name] for part in parts]) for name in first}
    if isinstance(first, tuple | list):
        return [joined(each) for each in zip(*parts, strict=True)]
    return np.concatenate(parts)


def _samples(element: Any, inputs: Sequence[Input]) -> list[Array]:
    arrays = list(element) if isinstance(element, tuple | list) else inputs_of(element, inputs)
    return list(checked(arrays, inputs).values())


def _leaves(samples: Any) -> Iterator[Any]:
    if isinstance(samples, Mapping | tuple | list):
        for each in samples.values() if isinstance(samples, Mapping) else samples:
            yield from _leaves(each)
    else:
        yield samples


def _batched(labels: Labels, count: int) -> Labels:
    """Labels of so many samples, as NumPy arrays; those of a single sample may lack the axis."""
    if isinstance(labels, Mapping):
        return {name: _batched(each, count) for name, each in labels.items()}
    if isinstance(labels, tuple | list):
        return [_batched(each, count) for each in labels]
    array = np.asarray(labels)
    if array.ndim and len(array) == count:
        return array
    if count == 1:
        return array[np.newaxis]
    raise DataError(
        f"Expected a label for each of {count} samples of a batch. Received: labels of shape {array.shape}."
    )


def _described(element: Any) -> str:
    length = f" of {len(element)}" if isinstance(element, tuple | list) else ""
    return f"{type(element).__name__}{length}"
