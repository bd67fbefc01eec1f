"""SampleBuffer: some samples of an input, for ranges of activations that no layer can follow in training."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule, register_quantize_rule

__all__ = ["SampleBuffer", "sample_buffers"]

_ROWS, _NUMBERS = (8, 64), 2**21
_ROWS_PER_BATCH = 32  # so that the samples are from several batches


@keras.saving.register_keras_serializable("keras_precision")
class SampleBuffer(keras.layers.Layer):
    """Passes an input of the model on, and holds some of its samples: representative ones, or those of the last batches.

    Activations inside recurrent cells and attention, and of operations that are no layers, have no layer of their own
    that could follow their range. The export measures them on these samples, with the trained weights.

    Args:
        input_dtype: The type of the input, which is also that of the samples.
        follows_training: Whether samples of training replace the oldest ones.
        **kwargs: As for ``keras.layers.Layer``.
    """

    def __init__(self, input_dtype: str = "float32", *, follows_training: bool = True, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32", "autocast": False})
        self.supports_masking = True
        self.sample_dtype, self.follows_training = input_dtype, follows_training

    @property
    def stands_for_input(self) -> bool:
        """Whether the layer has no path, as inputs have none: always."""
        return True

    def build(self, shape: Any) -> None:
        """Create the variables, for at most 64 samples."""
        least, most = _ROWS
        count = max(least, min(most, _NUMBERS // max(1, int(np.prod(shape[1:])))))
        options = {"initializer": "zeros", "trainable": False}
        self.rows = self.add_weight(
            shape=(count, *shape[1:]), dtype=self.sample_dtype, autocast=False, name="rows", **options
        )
        self.filled = self.add_weight(shape=(), dtype="int32", name="filled", **options)
        self.built = True

    def start(self, samples: npt.NDArray[Any]) -> None:
        """Hold some of the given samples, evenly spaced."""
        size = self.rows.shape[0]
        numbers = np.linspace(0, len(samples) - 1, min(size, len(samples))).round().astype(int)
        self.rows.assign(np.resize(samples[numbers], self.rows.shape))
        self.filled.assign(len(numbers))

    def samples(self) -> npt.NDArray[Any]:
        """Return the samples, of shape (n, ...)."""
        return np.asarray(ops.convert_to_numpy(self.rows))[: int(self.filled)]

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Return the inputs; in training, hold some of them in place of the oldest samples."""
        if training and self.follows_training:
            size = self.rows.shape[0]
            latest = ops.cast(inputs[:_ROWS_PER_BATCH], self.sample_dtype)
            self.filled.assign(ops.minimum(self.filled + ops.shape(latest)[0], size))
            self.rows.assign(ops.concatenate([latest, ops.convert_to_tensor(self.rows)])[:size])
        return inputs

    def compute_output_shape(self, shape: Any) -> Any:
        """Return the shape of the inputs."""
        return shape

    def get_config(self) -> dict[str, Any]:
        """Return the configuration, without the samples."""
        return {**super().get_config(), "input_dtype": self.sample_dtype, "follows_training": self.follows_training}


register_quantize_rule(SampleBuffer, QuantizeRule(output="kept"))


def sample_buffers(model: Any) -> list[SampleBuffer]:
    """Return the sample buffers of a model in the order of its inputs; none where training follows all ranges."""
    buffers = {id(layer.input): layer for layer in model.layers if isinstance(layer, SampleBuffer)}
    return [buffers[id(tensor)] for tensor in model.inputs] if buffers else []
