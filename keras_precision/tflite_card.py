"""The card of a ``.tflite`` file: how it was made, told by the file itself."""

import os

from keras_precision.errors import FileFormatError
from keras_precision.result import Result
from keras_precision.tflite_file import inspect

__all__ = ["card"]


def card(path: str | os.PathLike[str]) -> Result:
    """Return what ``export_tflite`` has put into a file beside its graph.

    Args:
        path: A ``.tflite`` file.

    Returns:
        The result of the export: the plan that the file realises, how it was calibrated, the range
        of each input in the calibration data, what was measured, and all versions.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: The file is damaged, or has no card.

    Example:
        >>> import keras_precision as kp
        >>> result = kp.export_tflite(model, "model.tflite", "int8", x_cal)
        >>> card("model.tflite").plan == result.plan
        True
    """
    text = inspect(path).card
    if not text:
        raise FileFormatError(
            f"{path}: expected a file that export_tflite wrote, with a card inside. Received: one without. Export it again."
        )
    return Result.from_bytes(text.encode(), path)
