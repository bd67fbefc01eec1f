"""FloatFile: the float ``.tflite`` file of a model, from any backend, that ranges are measured on."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_precision.core.errors import MissingExtraError
from keras_precision.core.system.optional import available
from keras_precision.quantization.conversion import Converted, FloatFormat, convert, input_names
from keras_precision.quantization.equalization import equalized
from keras_precision.quantization.layer_trace import Trace
from keras_precision.quantization.tensorflow_process import on_tensorflow

__all__ = ["FloatFile", "convert_anywhere", "float_file", "weights_digest"]


@dataclass(frozen=True)
class FloatFile:
    """A model in float32, as a file for one sample at a time.

    Attributes:
        content: The file's content.
        trace: The graph that it was made from.
        digest: What identifies the weights that the model holds.
        equalized_pairs: Between how many pairs of layers channels were scaled; None: the weights are
            those of the model.
    """

    content: bytes
    trace: Trace
    digest: str
    equalized_pairs: int | None = None


def float_file(model: Any, *, equalize: bool = False) -> FloatFile:
    """Return the float file of a model.

    Args:
        model: A built functional or sequential model, of tf_keras or of Keras 3 on any backend.
        equalize: Whether to equalize its weights across layers; the model stays as it is.

    Returns:
        The file.

    Raises:
        ModelError: The model is subclassed or not built, or an input has a free size.
        MissingExtraError: TensorFlow is not installed.
        ExportError: The conversion failed.
    """
    converted = convert_anywhere(model)
    content, pairs = equalized(converted.content) if equalize else (converted.content, None)
    return FloatFile(content, converted.trace, weights_digest(model), pairs)


def convert_anywhere(model: Any, precision: FloatFormat = "float32") -> Converted:
    """Convert a model of any backend, in a process of its own where the backend is not TensorFlow.

    Args:
        model: As for ``float_file``.
        precision: As for ``convert``.

    Returns:
        The file, and the graph that it was made from.

    Raises:
        ModelError: The model cannot be exported.
        MissingExtraError: TensorFlow is not installed.
        ExportError: The conversion failed.
    """
    names = input_names(model)
    if not available("tensorflow"):
        raise MissingExtraError(
            "Expected the package 'tensorflow', whose converter writes .tflite files of any backend. Install it with: pip install \"keras-precision[tensorflow]\""
        )
    return on_tensorflow(convert, model, precision, names)


def weights_digest(model: Any) -> str:
    """Return what tells a model's weights, and its number of layers, from others.

    Args:
        model: A built model.

    Returns:
        A hash, as hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for array in model.get_weights():
        values = np.ascontiguousarray(array)
        digest.update(f"{values.shape}{values.dtype}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
