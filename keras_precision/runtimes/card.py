"""The card of a file: the result of its export, stored in the file itself."""

import importlib
import os
from pathlib import Path
from types import MappingProxyType

from keras_precision.core.errors import FileFormatError
from keras_precision.core.result import Result

__all__ = ["card"]

_READERS = MappingProxyType(
    {
        ".onnx": ("keras_precision.runtimes.onnx", "inspect_onnx"),
        ".xml": ("keras_precision.runtimes.openvino", "inspect_openvino"),
        ".mlpackage": ("keras_precision.runtimes.coreml", "inspect_coreml"),
    }
)
_TFLITE = ("keras_precision.runtimes.tflite.file", "inspect")


def card(path: str | os.PathLike[str]) -> Result:
    """Return the result of the export that is stored in a file, in its metadata.

    Args:
        path: A file that ``export_tflite``, ``export_onnx``, ``export_openvino`` (its ``.xml``) or
            ``export_coreml`` wrote.

    Returns:
        The result of the export: the plan of the file, its calibration, the ranges of the inputs in
        the calibration data, what was measured, and all versions.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: The file is damaged, or has no card.
        MissingExtraError: The package that reads such files is not installed.

    Example:
        >>> import keras_precision as kp
        >>> result = kp.export_tflite(model, "model.tflite", "int8", x_cal)
        >>> card("model.tflite").plan == result.plan
        True
    """
    module, name = _READERS.get(Path(path).suffix, _TFLITE)
    text = getattr(importlib.import_module(module), name)(path).card
    if not text:
        raise FileFormatError(
            f"{path}: expected a file that this package exported, with a card inside. Received: one without. Export it again."
        )
    return Result.from_bytes(text.encode(), path)
