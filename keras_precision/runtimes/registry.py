"""The runtimes other than TensorFlow Lite's, by the suffixes of their files."""

import importlib
import os
from pathlib import Path
from types import MappingProxyType

from keras_precision.core.errors import FileFormatError
from keras_precision.runtimes.session import RuntimeSession
from keras_precision.runtimes.tflite.sandbox import ChildError, ChildTimeout, FileChild

__all__ = ["RUNTIME_FILES", "open_runtime"]

_SESSIONS = MappingProxyType(
    {
        ".onnx": ("keras_precision.runtimes.onnx", "OnnxSession"),
        ".xml": ("keras_precision.runtimes.openvino", "OpenvinoSession"),
    }
)

RUNTIME_FILES = tuple(_SESSIONS)
"""Suffixes of files that ``open_runtime`` opens."""


def open_runtime(path: str | os.PathLike[str], *, threads: int = 1, limit_s: float = 120.0) -> RuntimeSession:
    """Open a file, with a suffix of ``RUNTIME_FILES``, in its runtime.

    A file with a loop, which may have no end, runs once in a process of its own first, and is refused after ``limit_s``
    seconds; at once from then on, until it changes.

    Example:
        >>> import keras_precision as kp
        >>> written = kp.export_onnx(model, "model.onnx", "float32")
        >>> open_runtime("model.onnx").predict(x_test).shape
        (64, 2)
    """
    file = Path(path)
    if file.is_file() and any(word in file.read_bytes() for word in _LOOPS):
        try:
            _CHILD.read(file, limit_s)
        except ChildTimeout as error:
            raise FileFormatError(
                f"{path}: expected a file that runs once within {limit_s:g} s. Received: one with a loop, and {error}."
            ) from error
        except ChildError as error:
            raise FileFormatError(f"{path}: expected a file that runs. Received: {error}.") from error
    return _opened(path, threads)


def run_once(path: str) -> None:
    """Open and run a file; called in a child, which may not survive it."""
    _opened(path, 1)  # which runs it on a sample


_LOOPS = (b"Loop", b"&#")
"""The name of an operator, as it is in a file, and what may stand for a letter of it in an ``.xml`` file."""

_PROGRAM = "from keras_precision.runtimes.tflite.sandbox import serve; from keras_precision.runtimes.registry import run_once; serve(run_once)"
_CHILD = FileChild(_PROGRAM)


def _opened(path: str | os.PathLike[str], threads: int) -> RuntimeSession:
    module, name = _SESSIONS[Path(path).suffix]
    session: RuntimeSession = getattr(importlib.import_module(module), name)(path, threads=threads)
    return session
