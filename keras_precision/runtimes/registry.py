"""The runtimes other than TensorFlow Lite's, by the suffixes of their files."""

import importlib
import os
from pathlib import Path
from types import MappingProxyType

from keras_precision.runtimes.session import RuntimeSession

__all__ = ["RUNTIME_FILES", "open_runtime"]

_SESSIONS = MappingProxyType(
    {
        ".onnx": ("keras_precision.runtimes.onnx", "OnnxSession"),
        ".xml": ("keras_precision.runtimes.openvino", "OpenvinoSession"),
    }
)

RUNTIME_FILES = tuple(_SESSIONS)
"""Suffixes of files that ``open_runtime`` opens."""


def open_runtime(path: str | os.PathLike[str], *, threads: int = 1) -> RuntimeSession:
    """Open a file, with a suffix of ``RUNTIME_FILES``, in its runtime.

    Example:
        >>> import keras_precision as kp
        >>> written = kp.export_onnx(model, "model.onnx", "float32")
        >>> open_runtime("model.onnx").predict(x_test).shape
        (64, 2)
    """
    module, name = _SESSIONS[Path(path).suffix]
    session: RuntimeSession = getattr(importlib.import_module(module), name)(path, threads=threads)
    return session
