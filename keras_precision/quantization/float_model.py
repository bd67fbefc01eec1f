"""FloatFile: the float ``.tflite`` file of a model of any backend, on which activations are measured."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_precision._adapters.model_view import ModelView
from keras_precision.core.errors import MissingExtraError
from keras_precision.core.system.optional import available
from keras_precision.quantization.conversion import ConvertedFile, FloatFormat, convert, fixed_inputs
from keras_precision.quantization.equalization import equalize_layers
from keras_precision.quantization.layer_trace import Trace
from keras_precision.quantization.tensorflow_process import on_tensorflow
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["FloatFile", "convert_to_float_tflite", "float_file", "weights_digest"]


@dataclass(frozen=True)
class FloatFile:
    """A model in float32, as a file for one sample at a time.

    Attributes:
        content: The file's content.
        trace: The layers of its operators.
        digest: The hash of the model's weights.
        equalized_pairs: The number of layer pairs between which channels were scaled; None: without equalization.
    """

    content: bytes
    trace: Trace
    digest: str
    equalized_pairs: int | None = None

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each input without the batch axis, by name."""
        graph = Flatbuffer(self.content)
        return {name: tuple(graph.shape(tensor)[1:]) for name, tensor in graph.named_inputs().items()}


def float_file(view: ModelView, *, equalize: bool = False) -> FloatFile:
    """Return the float file of a model, with weights equalized across layers if asked; the model does not change."""
    converted = convert_to_float_tflite(view)
    content, pairs = equalize_layers(converted.content) if equalize else (converted.content, None)
    return FloatFile(content, converted.trace, weights_digest(view.model), pairs)


def convert_to_float_tflite(view: ModelView, precision: FloatFormat = "float32") -> ConvertedFile:
    """Convert a model of any backend, in a child process where the backend is not TensorFlow.

    Raises ModelError, ExportError, or MissingExtraError without TensorFlow.
    """
    inputs = fixed_inputs(view)
    if not available("tensorflow"):
        raise MissingExtraError(
            "Expected the package 'tensorflow', whose converter writes .tflite files of any backend. Install it with: pip install \"keras-precision[tensorflow]\""
        )
    return on_tensorflow(convert, view, precision, inputs)


def weights_digest(model: Any) -> str:
    """Return the hash of a model's weights, as hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for array in model.get_weights():
        values = np.ascontiguousarray(array)
        digest.update(f"{values.shape}{values.dtype}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
