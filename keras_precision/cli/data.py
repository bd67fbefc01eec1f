"""Samples and labels from NumPy files on the command line."""

import argparse
from collections.abc import Sequence
from typing import IO, Any

from keras_precision.core.errors import DataError, FileFormatError, nearest
from keras_precision.core.system.array_files import read_arrays
from keras_precision.core.system.files import check_exists

__all__ = ["add_data", "first_samples", "read_data"]


def add_data(
    parser: argparse.ArgumentParser,
    option: str,
    *,
    labels: bool,
    required: bool,
    help: str,  # noqa: A002 - as argparse calls it
) -> None:
    """Add the option for a file of samples, ``--x`` and, with ``labels``, ``--y`` for the names of its arrays."""
    parser.add_argument(option, required=required, metavar="FILE", help=f"{help}: an .npz or .npy file")
    parser.add_argument(
        "--x", nargs="+", default=["x"], metavar="NAME", help="arrays with the samples, one per input of the model (x)"
    )
    if labels:
        parser.add_argument(
            "--y", nargs="+", default=["y"], metavar="NAME", help="arrays with the labels, one per output (y)"
        )


def read_data(path: str, x: Sequence[str], y: Sequence[str] | None) -> tuple[Any, Any]:
    """Return samples and, for names ``y``, labels from an ``.npz`` file, or samples of one input from an ``.npy`` file.

    Both are arrays, or lists of arrays where several names are passed. Pickled objects are refused.
    """
    with check_exists(path, "a file of samples").open("rb") as file:
        arrays, known = _arrays(file, path, (*x, *(y or ())))
    for name in (*x, *(y or ())):
        if name not in arrays:
            option = "--x" if name in x else "--y"
            raise DataError(
                f"{path}: expected an array '{name}'. Received: {', '.join(known) or 'none'}. "
                f"Name the array: {option} NAME. {nearest(name, known)}".rstrip()
            )
    return _one_or_more(arrays, x), _one_or_more(arrays, y) if y else None


def _arrays(file: IO[bytes], path: str, names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    try:
        return read_arrays(file, names)
    except ValueError as error:
        raise FileFormatError(
            f"{path}: expected an .npz or .npy file of numbers. Received: a damaged or different file ({error}). "
            "Write one with numpy.savez."
        ) from error


def first_samples(x: Any, count: int | None) -> Any:
    """Return the first ``count`` samples of an array or of a list of arrays; all for None."""
    return [array[:count] for array in x] if isinstance(x, list) else x[:count]


def _one_or_more(arrays: dict[str, Any], names: Sequence[str]) -> Any:
    values = [arrays[name] for name in names]
    return values[0] if len(values) == 1 else values
