"""Task: what every run of a comparison does, and how a child finds what it was told by name."""

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_precision.core.errors import DataError, InputError
from keras_precision.core.system.files import check_exists

__all__ = ["Task", "check_build", "check_data", "found", "is_arrays", "made", "mapped", "pieces"]

_DATA = "(x, y) of arrays, a dataset, or a function that makes one of them"


@dataclass(frozen=True)
class Task:
    """What every run of a comparison does alike.

    Attributes:
        build: A function that returns a compiled model, ``"module:function"``, or the path of a ``.keras`` file.
        train_data: ``(x, y)`` or ``(x, y, weights)`` of arrays, a dataset, a function that makes one of
            them, or ``"module:function"``.
        validation_data: The same, to be scored on after each epoch.
        callbacks: Given the name of the run, returns its callbacks; None for none.
        batch_size: Samples a batch, where the data are arrays.
        epochs: Epochs of a run.
        steps: Training steps of a run, in place of epochs.
        metric: The compiled metric that is compared; None for the first one.
    """

    build: Any
    train_data: Any
    validation_data: Any
    callbacks: Any = None
    batch_size: int = 32
    epochs: int = 1
    steps: int | None = None
    metric: str | None = None


def check_build(build: Any) -> Any:
    """Return what builds a model, if it is of a kind that a child can use.

    Args:
        build: A function, ``"module:function"``, or a path.

    Returns:
        It; a path as an absolute one.

    Raises:
        InputError: It is something else.
        FileNotFoundError: There is no such file.
    """
    named = isinstance(build, str) and ":" in build and not Path(build).exists()
    if named or (callable(build) and not hasattr(build, "fit")):
        return build
    if isinstance(build, str | os.PathLike):
        path = Path(build)
        if path.suffix != ".keras":
            raise InputError(
                f"Expected a function that builds a compiled model, 'module:function', or the path of a .keras file. Received: '{build}'."
            )
        check_exists(path, "a model file")
        return path.resolve()
    what = "a model" if hasattr(build, "fit") else repr(build)
    raise InputError(
        f"Expected a function that builds a compiled model. Received: {what}. Each run builds its own, in a process of "
        "its own: pass the function, 'module:function', or the path of a .keras file."
    )


def check_data(data: Any, what: str) -> Any:
    """Return data, if they are there at all.

    Args:
        data: Any form of them.
        what: What they are, for the message.

    Returns:
        They.

    Raises:
        DataError: There are none, or x and y differ in length.
    """
    if data is None or (isinstance(data, str) and ":" not in data):
        raise DataError(f"Expected {what}: {_DATA}. Received: {data!r}.")
    if is_arrays(data):
        lengths = {len(array) for array in _leaves(data)}
        if len(lengths) != 1 or 0 in lengths:
            raise DataError(
                f"Expected {what} with as many labels as samples, and at least one. Received: {sorted(lengths)}."
            )
    return data


def found(name: str) -> Any:
    """Return what ``"module:function"`` names.

    Args:
        name: The module, a colon, and the function.

    Returns:
        The function.

    Raises:
        InputError: There is no such module, or no such function in it.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"Expected 'module:function', to be imported in another process. Received: '{name}' ({error}). "
            "Run from the folder of the module, or put it on PYTHONPATH."
        ) from error


def made(data: Any) -> Any:
    """Return data, made anew where a function makes them.

    Args:
        data: Any form of them.

    Returns:
        Arrays, or a dataset.
    """
    given = found(data) if isinstance(data, str) else data
    is_dataset = not isinstance(given, type) and (hasattr(given, "__iter__") or hasattr(given, "__getitem__"))
    return given() if callable(given) and not is_dataset else given


def is_arrays(data: Any) -> bool:
    """Tell whether data are ``(x, y)`` or ``(x, y, weights)`` of arrays, and no dataset."""
    if not isinstance(data, tuple | list) or not 2 <= len(data) <= 3:
        return False
    return all(hasattr(leaf, "shape") and hasattr(leaf, "__len__") for leaf in _leaves(data))


def mapped(function: Callable[[Any], Any], data: Any) -> Any:
    """Return the same structure with a function applied to each array in it."""
    if isinstance(data, Mapping):
        return {key: mapped(function, value) for key, value in data.items()}
    if isinstance(data, tuple | list):
        return tuple(mapped(function, value) for value in data)
    return function(data)


def _leaves(data: Any) -> Iterator[Any]:
    if isinstance(data, Mapping):
        data = [data[key] for key in sorted(data)]
    if isinstance(data, tuple | list):
        for value in data:
            yield from _leaves(value)
    else:
        yield data


def pieces(data: Any, most: int) -> Iterator[Any]:
    """Yield the arrays of the first batches of a dataset, or all of ``(x, y)``.

    Args:
        data: Arrays or a dataset.
        most: Batches at the most.

    Yields:
        NumPy arrays.
    """
    if is_arrays(data):
        batches: Iterable[Any] = [data]
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):  # a PyDataset, whose iteration never ends
        batches = (data[index] for index in range(min(most, len(data))))
    else:
        batches = (batch for _, batch in zip(range(most), data, strict=False))
    for batch in batches:
        for leaf in _leaves(batch):
            yield np.asarray(leaf)
