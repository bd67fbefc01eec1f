"""Samples and labels from the NumPy files that verbs are given."""

import argparse
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_precision.core.errors import DataError, FileFormatError, nearest
from keras_precision.core.system.files import check_exists

__all__ = ["add_data", "read_data"]


def add_data(
    parser: argparse.ArgumentParser,
    option: str,
    *,
    labels: bool,
    required: bool,
    help: str,  # noqa: A002 - argparse's own word
) -> None:
    """Add the arguments that name a file of samples, and the arrays in it.

    Args:
        parser: The parser of a verb.
        option: The argument that takes the file.
        labels: Whether the verb takes labels.
        required: Whether it cannot do without.
        help: What the samples are for.
    """
    parser.add_argument(option, required=required, metavar="FILE", help=f"{help}: an .npz or .npy file")
    parser.add_argument(
        "--x", nargs="+", default=["x"], metavar="NAME", help="arrays with the samples, one per input of the model (x)"
    )
    if labels:
        parser.add_argument(
            "--y", nargs="+", default=["y"], metavar="NAME", help="arrays with the labels, one per output (y)"
        )


def read_data(path: str, x: Sequence[str], y: Sequence[str] | None) -> tuple[Any, Any]:
    """Read samples, and labels if they are asked for.

    Args:
        path: An ``.npz`` file, or an ``.npy`` file with the samples of one input.
        x: Names of the arrays with samples.
        y: Names of the arrays with labels; None for none.

    Returns:
        Samples and labels, each an array, or a tuple of arrays where several are named.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is no file of NumPy, or holds pickled objects.
        DataError: It has no array of such a name.
    """
    try:
        content = np.load(check_exists(path, "a file of samples"), allow_pickle=False)
        if isinstance(content, np.ndarray):
            content = {"x": content}
        arrays = {name: content[name] for name in (*x, *(y or ())) if name in content}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FileFormatError(
            f"{path}: expected an .npz or .npy file of numbers. Received: a damaged or foreign file ({error})."
        ) from error
    for name in (*x, *(y or ())):
        if name not in arrays:
            known = list(content)
            option = "--x" if name in x else "--y"
            raise DataError(
                f"{path}: expected an array '{name}'. Received: {', '.join(known) or 'none'}. "
                f"Say which one it is: {option} NAME. {nearest(name, known)}".rstrip()
            )
    return _one_or_more(arrays, x), _one_or_more(arrays, y) if y else None


def _one_or_more(arrays: dict[str, Any], names: Sequence[str]) -> Any:
    found = tuple(arrays[name] for name in names)
    return found[0] if len(found) == 1 else found
