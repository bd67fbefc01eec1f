"""Samples with labels from anything that ``fit`` takes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.adapter import Input
from keras_precision._adapters.data.samples import elements_of, inputs_of, is_in_memory, validated
from keras_precision.core.errors import DataError

__all__ = ["Labels", "joined", "stream_labelled"]

Array = npt.NDArray[Any]
Labels = Any
"""An array of shape (n, ...), or one per output as a list, a tuple or a dict."""


def stream_labelled(data: Any, inputs: Sequence[Input] | None) -> Iterator[tuple[Any, Labels]]:
    """Yield batches of samples and labels as arrays, at least one; weights are dropped.

    ``data`` is anything that ``fit`` takes batches from. Without ``inputs``, samples are yielded unchecked.
    """
    if data is None or is_in_memory(data):
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
    """Concatenate the labels of several batches, in their structure."""
    first = parts[0]
    if isinstance(first, Mapping):
        return {name: joined([part[name] for part in parts]) for name in first}
    if isinstance(first, tuple | list):
        return [joined(outputs) for outputs in zip(*parts, strict=True)]
    return np.concatenate(parts)


def _samples(element: Any, inputs: Sequence[Input]) -> list[Array]:
    arrays = list(element) if isinstance(element, tuple | list) else inputs_of(element, inputs)
    return list(validated(arrays, inputs).values())


def _leaves(samples: Any) -> Iterator[Any]:
    if isinstance(samples, Mapping | tuple | list):
        for item in samples.values() if isinstance(samples, Mapping) else samples:
            yield from _leaves(item)
    else:
        yield samples


def _batched(labels: Labels, count: int) -> Labels:
    """Return the labels of ``count`` samples as NumPy arrays; those of a single sample may lack the batch axis."""
    if isinstance(labels, Mapping):
        return {name: _batched(output, count) for name, output in labels.items()}
    if isinstance(labels, tuple | list):
        return [_batched(output, count) for output in labels]
    array = np.asarray(labels)
    if array.ndim and len(array) == count:
        return array
    if count == 1:
        return array[np.newaxis]
    raise DataError(
        f"Expected {count} labels for a batch of {count} samples. Received: labels of shape {array.shape}. "
        "Batch samples and labels alike."
    )


def _described(element: Any) -> str:
    length = f" of {len(element)}" if isinstance(element, tuple | list) else ""
    return f"{type(element).__name__}{length}"
