"""Samples with labels from anything that ``fit`` takes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.data.samples import (
    concatenated,
    elements_of,
    inputs_of,
    is_in_memory,
    read_samples,
    validated,
)
from keras_precision.core.errors import DataError
from keras_precision.core.model_inputs import Input, in_order

__all__ = ["Labels", "joined", "read_labelled", "samples_and_labels", "stream_labelled"]

Array = npt.NDArray[Any]
Labels = Any
"""An array of shape (n, ...), or one per output as a list, a tuple or a dict."""


def samples_and_labels(data: Any) -> tuple[Any, Any]:
    """Return samples and labels of validation data, without weights, before any of them is read.

    The labels of what yields batches (``tf.data``, ``PyDataset``, torch ``DataLoader``, generator) are None: they come with
    the samples.
    """
    if isinstance(data, tuple | list):
        if len(data) not in (2, 3) or data[1] is None:
            raise DataError(
                f"Expected validation_data=(samples, labels). Received: a {type(data).__name__} of {len(data)}"
                f"{', without labels' if len(data) in (2, 3) else ''}. To score no file, leave it out."
            )
        return data[0], data[1]
    if is_in_memory(data) or isinstance(data, str | bytes):
        raise DataError(
            f"Expected validation_data=(samples, labels), or a dataset of such batches. Received: {type(data).__name__}."
        )
    return data, None


def read_labelled(x: Any, y: Labels, inputs: Sequence[Input]) -> tuple[dict[str, Array], Labels]:
    """Return all samples by input name, and their labels, which come with ``x`` where ``y`` is None."""
    if y is not None or is_in_memory(x):
        return read_samples(x, inputs), y
    batches = list(stream_labelled(x, inputs))
    return concatenated(samples for samples, _ in batches), joined([labels for _, labels in batches])


def stream_labelled(data: Any, inputs: Sequence[Input] | None) -> Iterator[tuple[Any, Labels]]:
    """Yield batches of samples by input name, with labels as arrays, at least one; weights are dropped.

    ``data`` is anything that ``fit`` takes batches from. Without ``inputs``, samples are yielded as they are.
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


def _samples(element: Any, inputs: Sequence[Input]) -> dict[str, Array]:
    """The samples of a batch, which are all inputs: labels follow them."""
    arrays = in_order(element, inputs) if isinstance(element, tuple | list) else inputs_of(element, inputs)
    return validated(arrays, inputs)


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
