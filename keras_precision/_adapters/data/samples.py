"""Samples in any form that ``fit`` takes, as validated NumPy arrays in the order and dtypes of a model's inputs."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import DataError
from keras_precision.core.model_inputs import Input, fits_shape, in_order

__all__ = [
    "concatenated",
    "elements_of",
    "inputs_of",
    "is_in_memory",
    "read_samples",
    "stream_samples",
    "validated",
    "zeros_for",
]

Array = npt.NDArray[Any]

_FORMS = "an array, a list or tuple of arrays (one per input), a dict by input name, a tf.data.Dataset, a keras PyDataset, a torch DataLoader, a generator, or a function that yields lists of arrays"


def read_samples(data: Any, inputs: Sequence[Input]) -> dict[str, Array]:
    """Return input name to an array of shape (n, ...) with all samples, in the input's dtype and without labels.

    ``data`` is an array, one array per input as a tuple, list or dict, anything that yields batches or single samples
    (tuples may have labels and weights after the inputs, as for ``fit``), or a function that returns such a thing, as in
    TensorFlow Lite's documentation.
    """
    return concatenated(stream_samples(data, inputs))


def concatenated(batches: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """Return all samples of batches by input name."""
    parts = list(batches)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def stream_samples(data: Any, inputs: Sequence[Input]) -> Iterator[dict[str, Array]]:
    """Yield the same as ``read_samples`` in batches, at least one, so that memory has one batch at a time."""
    if data is None:
        raise DataError(
            f"Expected a representative dataset: {_FORMS}. Received: None. A few hundred samples of the training data will do."
        )
    if isinstance(data, str | bytes):
        raise DataError(
            f"Expected a representative dataset: {_FORMS}. Received: {type(data).__name__}. Load the data first."
        )
    if is_in_memory(data):
        batches = iter([validated(_unlabelled(data, inputs), inputs, batched=True)])
    else:
        batches = (validated(piece, inputs) for piece in _pieces(data, inputs))
    empty = True
    for batch in batches:
        if batch:
            empty = False
            yield batch
    if empty:
        raise DataError(
            "Expected at least one sample. Received: a representative dataset that yields nothing. Was a generator used up before?"
        )


def zeros_for(inputs: Sequence[Input], count: int) -> dict[str, Array]:
    """Return zeros by input name, of shape (count, ...)."""
    free = [entry.name for entry in inputs if None in entry.shape]
    if free or not inputs:
        raise DataError(
            f"Expected samples to run. Received: none, for {f'an input of free size, {free[0]!r}' if free else 'a subclassed model'}. Pass inputs."
        )
    return {entry.name: np.zeros((count, *(size or 1 for size in entry.shape)), entry.dtype) for entry in inputs}


def is_in_memory(data: Any) -> bool:
    """Tell whether data are arrays, or a list, tuple or dict of them, and not something that yields batches."""
    return isinstance(data, Mapping | list | tuple | np.ndarray) or (
        hasattr(data, "shape") and hasattr(data, "__array__")
    )


def _unlabelled(data: Any, inputs: Sequence[Input]) -> list[Any]:
    """One object per input of data in memory."""
    if isinstance(data, Mapping | list | tuple):
        return in_order(data, inputs)
    if len(inputs) != 1:
        names = ", ".join(f"'{entry.name}'" for entry in inputs)
        raise DataError(
            f"Expected {len(inputs)} arrays, for {names}. Received: one array. Give a tuple, or a dict by input name."
        )
    return [data]


def _pieces(data: Any, inputs: Sequence[Input]) -> Iterator[list[Any]]:
    bare = callable(data)  # the form of TensorFlow Lite: a function that yields lists of inputs, never labels
    for element in elements_of(data):
        yield in_order(element, inputs) if bare and isinstance(element, list) else inputs_of(element, inputs)


def elements_of(data: Any) -> Iterable[Any]:
    """Return the elements of a dataset, loader or iterable, or of a function that returns one."""
    # A function, and not a callable dataset, as some loaders are.
    produced = data() if callable(data) and not hasattr(data, "__iter__") and not hasattr(data, "__getitem__") else data
    cardinality = getattr(produced, "cardinality", None)  # of tf.data: -1 is infinite
    batches = getattr(produced, "num_batches", None)  # of PyDataset: None is infinite
    if (cardinality is not None and int(cardinality()) == -1) or (hasattr(produced, "num_batches") and batches is None):
        raise DataError(
            "Expected representative data that end. Received: an infinite dataset. Cut it: dataset.take(100)."
        )
    if batches is not None:  # the iterator of a PyDataset does not end
        return (produced[index] for index in range(batches))
    if not isinstance(produced, Iterable):
        raise DataError(f"Expected a representative dataset: {_FORMS}. Received: {type(data).__name__}.")
    return produced


def inputs_of(element: Any, inputs: Sequence[Input]) -> list[Any]:
    """Return one object per input from an element of a dataset, without labels and weights."""
    if isinstance(element, Mapping):
        return in_order(element, inputs)
    if not isinstance(element, tuple | list):
        return in_order([element], inputs)
    # (x,), (x, y) or (x, y, weights), as for fit; or, for several inputs, one array per input. Torch
    # loaders turn the tuples into lists.
    if element and isinstance(element[0], Mapping | list | tuple):
        return inputs_of(element[0], inputs)
    return in_order(element if len(inputs) > 1 else element[:1], inputs)


def validated(arrays: Sequence[Any], inputs: Sequence[Input], *, batched: bool = False) -> dict[str, Array]:
    """Return input name to a finite array of shape (n, ...) in the input's dtype; nothing for no samples.

    ``batched`` requires the sample axis; otherwise a single sample gets one.
    """
    fitted = {
        entry.name: _fitted(_array(array, entry), entry, batched) for array, entry in zip(arrays, inputs, strict=True)
    }
    counts = {name: len(array) for name, array in fitted.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"Expected the same number of samples for every input. Received: {counts}. Pass whole samples.")
    return fitted if next(iter(counts.values())) else {}


def _array(values: Any, entry: Input) -> Array:
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise DataError(
            f"Expected samples of one shape for the input '{entry.name}'. Received: a ragged list. Pad or crop them."
        ) from error


def _fitted(array: Array, entry: Input, batched: bool) -> Array:
    name = f"the input '{entry.name}'"
    if not batched and fits_shape(array.shape, entry.shape):
        array = array[np.newaxis]
    if not fits_shape(array.shape[1:], entry.shape) or array.ndim == 0:
        sizes = ", ".join("any" if size is None else str(size) for size in entry.shape)
        raise DataError(f"Expected samples of shape (n, {sizes}) for {name}. Received: {array.shape}.")
    dtype = np.dtype(entry.dtype)
    kinds = "biuf" if dtype.kind == "f" else "biu"
    # bfloat16 of ml_dtypes has the kind V.
    if array.dtype.kind not in kinds and array.dtype.name != "bfloat16":
        what = "numbers" if dtype.kind == "f" else "whole numbers"
        raise DataError(f"Expected {what} (dtype {dtype}) for {name}. Received: dtype {array.dtype}.")
    fitted = array.astype(dtype, copy=False)
    broken = fitted.size - int(np.count_nonzero(np.isfinite(fitted)))
    if broken:
        raise DataError(
            f"Expected finite samples for {name}. Received: {broken} values of {math.prod(fitted.shape)} that are NaN or infinite. "
            "Remove them: one infinity would determine the range of a whole layer."
        )
    return fitted
