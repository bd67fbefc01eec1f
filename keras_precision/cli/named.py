"""What ``module:function`` names on a command line."""

import argparse
import contextlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from keras_precision.core.errors import DataError, InputError
from keras_precision.experiments.task import found, is_arrays, mapped

__all__ = ["WHERE", "Part", "add_model", "is_named", "modules_importable"]

WHERE = "an installed module, or else one of the current folder"
"""Where the module of ``module:function`` is imported from, as the help of an option says it."""

_VALIDATION = 0.2


@dataclass(frozen=True)
class Part:
    """The first four fifths of the arrays that a function makes, or the rest; called in a child.

    Attributes:
        name: ``"module:function"``.
        rest: Whether it is the rest.
    """

    name: str
    rest: bool

    def __call__(self) -> Any:
        """Return the part.

        Raises:
            DataError: The function makes no arrays.
        """
        data = found(self.name)()
        if not is_arrays(data):
            raise DataError(
                f"Expected '{self.name}' to return (x, y) of arrays. Received: {type(data).__name__}. Name a function for "
                "the validation data, too: --validation MODULE:FUNCTION."
            )
        count = len(data[1])
        cut = count - max(1, int(_VALIDATION * count))
        return mapped(lambda array: array[cut:] if self.rest else array[:cut], tuple(data))


def add_model(parser: argparse.ArgumentParser, data: str) -> None:
    """Add the arguments that name a model and its data.

    Args:
        parser: The parser of a verb.
        data: What the function of ``--data`` returns.
    """
    parser.add_argument(
        "--model",
        required=True,
        metavar="NAME",
        help=f"module:function that builds a compiled model ({WHERE}), or a .keras file",
    )
    parser.add_argument("--data", required=True, metavar="NAME", help=f"module:function that returns {data} ({WHERE})")


def is_named(name: str) -> bool:
    """Tell whether an argument is ``module:function``, and not a path.

    Args:
        name: The argument.

    Returns:
        Whether it is.
    """
    return re.fullmatch(r"\w+(?:\.\w+)*:\w+", name) is not None and not Path(name).exists()


@contextlib.contextmanager
def modules_importable(*names: str | None) -> Iterator[None]:
    """Let what ``module:function`` names be imported, here and in child processes, and say from which files.

    The current folder is searched last, and only where a module was named: a file in it that is called like a module of
    Python, or of an installed package, is not imported in its place.

    Args:
        *names: Arguments that may be ``module:function``; what is not is passed over.

    Yields:
        Nothing.

    Raises:
        InputError: There is no such module.
    """
    modules = dict.fromkeys(name.partition(":")[0] for name in names if name is not None and is_named(name))
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
    """The file that a module would be imported from; it is not imported, nor are the packages that it is in."""
    top, *parts = module.split(".")
    spec = None if top == "__main__" else importlib.util.find_spec(top)  # that is the command itself
    if spec is None:
        raise InputError(
            f"Expected module:function with {WHERE}. Received: '{module}', but there is no '{top}' in {folder}, and none is "
            "installed. Run the command in the folder of the module, or put that folder on PYTHONPATH."
        )
    for part in parts:
        folders = spec.submodule_search_locations
        # By its last name alone: under the whole one, a package without a file asks for its parent, which is not imported.
        inner = None if folders is None else PathFinder.find_spec(part, folders)
        if inner is None:  # the import says more: a package may find its modules in a way of its own
            break
        spec = inner
    return _place(spec)


def _place(spec: ModuleSpec) -> str:
    """The file of a module; the first folder of a package without one."""
    return spec.origin or next(iter(spec.submodule_search_locations or ()), "an unknown place")
