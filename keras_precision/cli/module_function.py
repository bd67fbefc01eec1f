"""Functions that are named ``module:function`` on the command line."""

import argparse
import contextlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

from keras_precision.core.errors import DataError, InputError
from keras_precision.experiments.task import import_function, is_arrays, map_arrays

__all__ = ["IMPORT_LOCATION", "DataPart", "add_model", "is_module_function", "modules_importable"]

IMPORT_LOCATION = "an installed module, or else one in the current folder"
"""Where ``module`` is imported from, for the help of options."""

_VALIDATION = 0.2


@dataclass(frozen=True)
class DataPart:
    """The first four fifths of a function's arrays, or the last fifth for validation; called in a child process."""

    name: str
    validation: bool

    def __call__(self) -> Any:
        """Return (x, y) of this part."""
        data = import_function(self.name)()
        if not is_arrays(data):
            raise DataError(
                f"Expected '{self.name}' to return (x, y) of arrays. Received: {type(data).__name__}. Pass a function for "
                "the validation data: --validation MODULE:FUNCTION."
            )
        count = len(data[1])
        cut = count - max(1, int(_VALIDATION * count))
        return map_arrays(lambda array: array[cut:] if self.validation else array[:cut], tuple(data))


def add_model(parser: argparse.ArgumentParser, data: str) -> None:
    """Add ``--model`` and ``--data``, whose function returns ``data``."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="NAME",
        help=f"module:function that builds a compiled model ({IMPORT_LOCATION}), or a .keras file",
    )
    parser.add_argument(
        "--data", required=True, metavar="NAME", help=f"module:function that returns {data} ({IMPORT_LOCATION})"
    )


def is_module_function(name: str) -> bool:
    """Return whether an argument is ``module:function`` and not an existing path."""
    return re.fullmatch(r"\w+(?:\.\w+)*:\w+", name) is not None and not os.path.exists(name)


@contextlib.contextmanager
def modules_importable(*names: str | None) -> Iterator[None]:
    """Make the modules of ``module:function`` arguments importable, here and in child processes, and print their files.

    The current folder is searched last, and only for such arguments, so that its files never shadow Python's modules or
    installed packages. Other arguments are ignored.
    """
    modules = dict.fromkeys(name.partition(":")[0] for name in names if name is not None and is_module_function(name))
    folder = os.getcwd()
    adds_folder = bool(modules) and {"", folder}.isdisjoint(sys.path)
    if adds_folder:
        sys.path.append(folder)
    try:
        for module in modules:
            print(f"keras-precision: importing '{module}' from {_origin(module, folder)}", file=sys.stderr)
        yield
    finally:
        if adds_folder:
            sys.path.remove(folder)


def _origin(module: str, folder: str) -> str:
    """Return the file that a module would be imported from, without importing it or its packages."""
    top, *parts = module.split(".")
    spec = None if top == "__main__" else importlib.util.find_spec(top)  # __main__ is this program
    if spec is None:
        raise InputError(
            f"Expected module:function with {IMPORT_LOCATION}. Received: '{module}', but there is no '{top}' in {folder}, and none is "
            "installed. Run the command in the folder of the module, or put that folder on PYTHONPATH."
        )
    for part in parts:
        folders = spec.submodule_search_locations
        # By its last name alone: for the full name, a namespace package looks up its parent in sys.modules, see
        # https://github.com/python/cpython/blob/v3.11.7/Lib/importlib/_bootstrap_external.py (_NamespacePath).
        inner = None if folders is None else PathFinder.find_spec(part, folders)
        if inner is None:  # the package may find its modules by itself; the import decides
            break
        spec = inner
    return _place(spec)


def _place(spec: ModuleSpec) -> str:
    """Return the file of a module, or the first folder of a namespace package."""
    return spec.origin or next(iter(spec.submodule_search_locations or ()), "an unknown place")
