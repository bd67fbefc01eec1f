"""What ``module:function`` names on a command line."""

import argparse
import os
import sys
from dataclasses import dataclass
from typing import Any

from keras_precision.errors import DataError
from keras_precision.experiment.task import found, is_arrays, mapped

__all__ = ["Part", "add_model", "find_modules_here"]

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
        "--model", required=True, metavar="NAME", help="module:function that builds a compiled model, or a .keras file"
    )
    parser.add_argument("--data", required=True, metavar="NAME", help=f"module:function that returns {data}")


def find_modules_here() -> None:
    """Let modules in the current folder be imported, as ``python script.py`` would there."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
