"""Arrays in files of NumPy, read without running code, and without memory that a file does not fill."""

import io
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from typing import IO, Any

import numpy as np
import numpy.typing as npt

__all__ = ["read_arrays"]

Array = npt.NDArray[Any]

_SINGLE = "x"
"""The name of the array of an ``.npy`` file."""


def read_arrays(file: IO[bytes] | bytes, names: Collection[str] | None = None) -> tuple[dict[str, Array], list[str]]:
    """Return the arrays of an ``.npz`` file, or that of an ``.npy`` file as ``"x"``; ``ValueError`` if it is damaged.

    ``numpy.load`` allocates what a header declares, and raises errors of zip files, of Python's tokenizer and of its own.

    Args:
        file: The file, opened for reading, or its content.
        names: Only the arrays of these names; None for all.

    Returns:
        The arrays by name, and the names of all arrays in the file.

    Example:
        >>> content = io.BytesIO()
        >>> np.savez(content, x=np.zeros(2), y=np.ones(2))
        >>> arrays, known = read_arrays(content.getvalue(), ["y"])
        >>> arrays["y"].tolist(), known
        ([1.0, 1.0], ['x', 'y'])
    """
    opened = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        if not zipfile.is_zipfile(opened):
            opened.seek(0)
            return {_SINGLE: _array(opened, opened.seek(0, io.SEEK_END))}, [_SINGLE]
        with zipfile.ZipFile(opened) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            arrays = {}
            for name in entries if names is None else [name for name in names if name in entries]:
                with archive.open(entries[name]) as stream:
                    arrays[name] = _array(stream, entries[name].file_size)
            return arrays, list(entries)
    except (
        EOFError, LookupError, OSError, RuntimeError, SyntaxError, TypeError, OverflowError,
        struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _array(stream: IO[bytes], size: int) -> Array:
    """Read the array of a stream of ``size`` bytes."""
    stream.seek(0)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of format {version}")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - stream.tell():
        raise ValueError(f"an array of shape {shape} and {dtype} in {size} bytes")
    stream.seek(0)
    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
