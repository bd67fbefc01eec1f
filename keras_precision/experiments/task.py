"""Task: build, data and settings of all runs of a comparison, and how a child imports and loads them."""

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_precision.core.errors import DataError, InputError
from keras_precision.core.system.files import check_exists

__all__ = [
    "Task",
    "check_build",
    "check_data",
    "import_function",
    "is_arrays",
    "leading_arrays",
    "load_data",
    "map_arrays",
]

_DATA = "(x, y) of arrays, a dataset, or a function that returns one of them"


@dataclass(frozen=True)
class Task:
    """Build, data and settings of all runs of a comparison.

    Attributes:
        build: A function that returns a compiled model, ``"module:function"``, or the path of a ``.keras`` file.
        train_data: ``(x, y)`` or ``(x, y, weights)`` of arrays, a dataset, a function that returns one of them, or
            ``"module:function"``.
        validation_data: The same, evaluated after every epoch.
        callbacks: Called with the name of the run, returns its callbacks; None for none.
        batch_size: Of arrays.
        steps: Training steps of a run, in place of epochs.
        metric: The compared metric; None for the first compiled one.
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
    """Return a build that a child can use, a path as an absolute one; raise for anything else."""
    if isinstance(build, str) and ":" in build and not os.path.exists(build):
        _split(build)
        return build
    if callable(build) and not hasattr(build, "fit"):
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
        f"Expected a function that builds a compiled model. Received: {what}. Every run builds its own model, in its "
        "own process: pass the function, 'module:function', or the path of a .keras file."
    )


def check_data(data: Any, what: str) -> Any:
    """Return data; raise for none, and for x and y of different lengths. ``what`` names them in messages."""
    if data is None or (isinstance(data, str) and ":" not in data):
        raise DataError(f"Expected {what}: {_DATA}. Received: {data!r}.")
    if isinstance(data, str):
        _split(data)
    if is_arrays(data):
        lengths = {len(array) for array in _leaves(data)}
        if len(lengths) != 1 or 0 in lengths:
            raise DataError(
                f"Expected {what} with as many labels as samples, and at least one. Received: {sorted(lengths)}."
            )
    return data


def import_function(name: str) -> Any:
    """Return the function that ``"module:function"`` names."""
    module, function = _split(name)
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"Expected 'module:function', to import in another process. Received: '{name}' ({error}). "
            "Run from the folder of the module, or put it on PYTHONPATH."
        ) from error


def _split(name: str) -> tuple[str, str]:
    """Return module and function of ``"module:function"``; raise for other text."""
    module, _, function = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise InputError(
            f"Expected 'module:function', such as 'package.module:build'. Received: '{name}'. Name a module that Python "
            "can import, a colon, and a function in it."
        )
    return module, function


def load_data(data: Any) -> Any:
    """Return arrays or a dataset, called again where a function returns them."""
    source = import_function(data) if isinstance(data, str) else data
    is_dataset = not isinstance(source, type) and (hasattr(source, "__iter__") or hasattr(source, "__getitem__"))
    return source() if callable(source) and not is_dataset else source


def is_arrays(data: Any) -> bool:
    """Return whether data are ``(x, y)`` or ``(x, y, weights)`` of arrays, and no dataset."""
    if not isinstance(data, tuple | list) or not 2 <= len(data) <= 3:
        return False
    return all(hasattr(leaf, "shape") and hasattr(leaf, "__len__") for leaf in _leaves(data))


def map_arrays(function: Callable[[Any], Any], data: Any) -> Any:
    """Return the same structure with a function applied to its arrays."""
    if isinstance(data, Mapping):
        return {key: map_arrays(function, value) for key, value in data.items()}
    if isinstance(data, tuple | list):
        return tuple(map_arrays(function, value) for value in data)
    return function(data)


def _leaves(data: Any) -> Iterator[Any]:
    if isinstance(data, Mapping):
        data = [data[key] for key in sorted(data)]
    if isinstance(data, tuple | list):
        for value in data:
            yield from _leaves(value)
    else:
        yield data


def leading_arrays(data: Any, batches: int) -> Iterator[Any]:
    """Yield the NumPy arrays of the first batches of a dataset, or all of ``(x, y)``."""
    if is_arrays(data):
        selected: Iterable[Any] = [data]
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):  # a PyDataset, whose iteration never ends
        selected = (data[index] for index in range(min(batches, len(data))))
    else:
        selected = (batch for _, batch in zip(range(batches), data, strict=False))
    for batch in selected:
        for leaf in _leaves(batch):
            yield np.asarray(leaf)
