"""Samples: representative data in any form that ``fit`` takes, as checked NumPy arrays."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.adapter import Input
from keras_precision.core.errors import DataError

__all__ = ["at_once", "checked", "elements_of", "inputs_of", "read_samples", "stream_samples"]

Array = npt.NDArray[Any]

_FORMS = "an array, a list or tuple of arrays (one per input), a dict by input name, a tf.data.Dataset, a keras PyDataset, a torch DataLoader, a generator, or a function that yields lists of arrays"


def read_samples(data: Any, inputs: Sequence[Input]) -> dict[str, Array]:
    """Read all samples, check them against the inputs of a model, and drop labels.

    Args:
        data: An array of shape (n, ...); one array per input as a tuple, list or dict; or anything
            that yields batches (``tf.data``, ``PyDataset``, torch ``DataLoader``, generator) or
            single samples; or a function that returns such a thing, as TensorFlow Lite's
            documentation has it. Elements that are tuples may carry labels and weights behind
            the inputs, as for ``fit``.
        inputs: The inputs of the model.

    Returns:
        Input name to an array of shape (n, ...) in the input's type.

    Raises:
        DataError: There are none, or their count, shape, type or values do not fit.
    """
    batches = list(stream_samples(data, inputs))
    return {each.name: np.concatenate([batch[each.name] for batch in batches]) for each in inputs}


def stream_samples(data: Any, inputs: Sequence[Input]) -> Iterator[dict[str, Array]]:
    """Read samples piece by piece, so that memory holds one piece at a time.

    Args:
        data: As for ``read_samples``.
        inputs: The inputs of the model.

    Yields:
        Input name to an array of shape (n, ...) in the input's type, n at least 1; at least once.

    Raises:
        DataError: As for ``read_samples``.
    """
    if data is None:
        raise DataError(
            f"Expected a representative dataset: {_FORMS}. Received: None. A few hundred samples of the training data will do."
        )
    if isinstance(data, str | bytes):
        raise DataError(
            f"Expected a representative dataset: {_FORMS}. Received: {type(data).__name__}. Load the data first."
        )
    whole = _whole(data, inputs)
    batches = (
        iter([checked(whole, inputs, batched=True)])
        if whole is not None
        else (checked(piece, inputs) for piece in _pieces(data, inputs))
    )
    empty = True
    for batch in batches:
        if batch:
            empty = False
            yield batch
    if empty:
        raise DataError(
            "Expected at least one sample. Received: a representative dataset that yields nothing. Was a generator used up before?"
        )


def at_once(data: Any) -> bool:
    """Tell whether data hold all samples at once: arrays, not something that yields them.

    Args:
        data: As for ``read_samples``.

    Returns:
        True for an array, and for a list, tuple or dict of them.
    """
    held = isinstance(data, Mapping | list | tuple | np.ndarray)
    return held or (hasattr(data, "shape") and hasattr(data, "__array__"))


def _whole(data: Any, inputs: Sequence[Input]) -> list[Any] | None:
    """One object per input where ``data`` holds all samples at once; None where it yields them."""
    if isinstance(data, Mapping):
        return _by_name(data, inputs)
    if isinstance(data, list | tuple):
        if len(data) != len(inputs):
            hint = (
                "For many samples of one input, stack them: np.stack(samples)."
                if len(inputs) == 1
                else "Give one array per input."
            )
            raise DataError(
                f"Expected {len(inputs)} array(s), for {_listed(inputs)}. Received: a {type(data).__name__} of {len(data)}. {hint}"
            )
        return list(data)
    if at_once(data):
        if len(inputs) != 1:
            raise DataError(
                f"Expected {len(inputs)} arrays, for {_listed(inputs)}. Received: one array. Give a tuple, or a dict by input name."
            )
        return [data]
    return None


def _pieces(data: Any, inputs: Sequence[Input]) -> Iterator[list[Any]]:
    bare = callable(data)  # TensorFlow Lite's own form: a function that yields lists of inputs, never labels
    for element in elements_of(data):
        yield list(element) if bare and isinstance(element, list) else inputs_of(element, inputs)


def elements_of(data: Any) -> Iterable[Any]:
    """Return what data yield, once through.

    Args:
        data: A dataset, loader or iterable, or a function that returns one.

    Returns:
        Its elements.

    Raises:
        DataError: They never end, or there are none to be had.
    """
    # A function; not a dataset that can be called as well, as some loaders can.
    produced = data() if callable(data) and not hasattr(data, "__iter__") and not hasattr(data, "__getitem__") else data
    cardinality = getattr(produced, "cardinality", None)  # of tf.data: -1 is infinite
    batches = getattr(produced, "num_batches", None)  # of PyDataset: None is infinite
    if (cardinality is not None and int(cardinality()) == -1) or (hasattr(produced, "num_batches") and batches is None):
        raise DataError(
            "Expected representative data that end. Received: an infinite dataset. Cut it: dataset.take(100)."
        )
    if batches is not None:  # a PyDataset, whose iteration never ends by itself
        return (produced[index] for index in range(batches))
    if not isinstance(produced, Iterable):
        raise DataError(f"Expected a representative dataset: {_FORMS}. Received: {type(data).__name__}.")
    return produced


def inputs_of(element: Any, inputs: Sequence[Input]) -> list[Any]:
    """Return the inputs of one element, without labels and weights.

    Args:
        element: What a dataset yields.
        inputs: The inputs of the model.

    Returns:
        One object per input.

    Raises:
        DataError: A dict has other keys.
    """
    if isinstance(element, Mapping):
        return _by_name(element, inputs)
    if not isinstance(element, tuple | list):
        return [element]
    # (x,), (x, y) or (x, y, weights), as for fit; or, for several inputs, one array each. Torch
    # loaders turn the tuples into lists.
    if element and isinstance(element[0], Mapping | list | tuple):
        return inputs_of(element[0], inputs)
    return list(element) if len(element) == len(inputs) or len(inputs) > 1 else list(element[:1])


def _by_name(data: Mapping[str, Any], inputs: Sequence[Input]) -> list[Any]:
    keys = [next((key for key in (*each.aliases, each.name) if key in data), None) for each in inputs]
    if None in keys or len(data) != len(inputs):
        wanted = [each.aliases[-1] if each.aliases else each.name for each in inputs]
        raise DataError(f"Expected a dict with the keys {wanted}. Received: {list(data)}.")
    return [data[key] for key in keys if key is not None]


def checked(arrays: list[Any], inputs: Sequence[Input], *, batched: bool = False) -> dict[str, Array]:
    """Return the arrays of some samples as the model takes them.

    Args:
        arrays: One per input.
        inputs: The inputs of the model.
        batched: Whether the first axis must be that of the samples; else single samples get one.

    Returns:
        Input name to an array of shape (n, ...), finite and of the input's type; nothing for no samples.

    Raises:
        DataError: They do not fit.
    """
    if len(arrays) != len(inputs):
        raise DataError(f"Expected {len(inputs)} array(s) a sample, for {_listed(inputs)}. Received: {len(arrays)}.")
    fitted = {
        each.name: _fitted(_array(array, each), each, batched) for array, each in zip(arrays, inputs, strict=True)
    }
    counts = {name: len(array) for name, array in fitted.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"Expected as many samples for each input. Received: {counts}.")
    return fitted if next(iter(counts.values())) else {}


def _array(values: Any, wanted: Input) -> Array:
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise DataError(
            f"Expected samples of one shape for the input '{wanted.name}'. Received: a ragged list."
        ) from error


def _fitted(array: Array, wanted: Input, batched: bool) -> Array:
    name = f"the input '{wanted.name}'"
    if not batched and _fits(array.shape, wanted.shape):
        array = array[np.newaxis]
    if not _fits(array.shape[1:], wanted.shape) or array.ndim == 0:
        sizes = ", ".join("any" if size is None else str(size) for size in wanted.shape)
        raise DataError(f"Expected samples of shape (n, {sizes}) for {name}. Received: {array.shape}.")
    dtype = np.dtype(wanted.dtype)
    kinds = "biuf" if dtype.kind == "f" else "biu"
    # ml_dtypes' bfloat16 is of kind V, and a float all the same.
    if array.dtype.kind not in kinds and array.dtype.name != "bfloat16":
        what = "numbers" if dtype.kind == "f" else "whole numbers"
        raise DataError(f"Expected {what} (dtype {dtype}) for {name}. Received: dtype {array.dtype}.")
    fitted = array.astype(dtype, copy=False)
    broken = fitted.size - int(np.count_nonzero(np.isfinite(fitted)))
    if broken:
        raise DataError(
            f"Expected finite samples for {name}. Received: {broken} values of {math.prod(fitted.shape)} that are NaN or infinite. "
            "Remove them: one infinity would become the range of a whole layer."
        )
    return fitted


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(size in (None, got) for size, got in zip(wanted, shape, strict=True))


def _listed(inputs: Sequence[Input]) -> str:
    return ", ".join(f"'{each.name}'" for each in inputs)
