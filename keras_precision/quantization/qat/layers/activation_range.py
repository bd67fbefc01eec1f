"""ActivationRange: the range of one activation, averaged or learned in training, and its fake quantization."""

from typing import Any

import keras
from keras import ops

from keras_precision.quantization.qat.layers.fake_quant import fake_quantize

__all__ = ["ActivationRange"]


@keras.saving.register_keras_serializable("keras_precision")
class ActivationRange(keras.layers.Layer):
    """The range in which one activation is quantized.

    Args:
        learned: Whether gradients train the range, from its start value; else it is a
            moving average of the smallest and largest value of every batch.
        momentum: The weight of the previous average.
        **kwargs: As for ``keras.layers.Layer``.
    """

    def __init__(self, *, learned: bool = False, momentum: float = 0.99, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32", "autocast": False})
        self.supports_masking = True  # the wrapper around it says what becomes of a mask
        self.learned, self.momentum = learned, momentum
        self.low = self.add_weight(shape=(), initializer="zeros", trainable=False, name="low")
        self.high = self.add_weight(shape=(), initializer="zeros", trainable=False, name="high")
        # Trained as the logarithm of a factor, so that one learning rate fits ranges of every size:
        # S. Jain and others, Trained Quantization Thresholds, 2019, section 3.2.
        self.stretch = self.add_weight(shape=(2,), initializer="zeros", name="stretch") if learned else None
        self.built = True

    def start(self, low: float, high: float) -> None:
        """Set the range, from which training goes on."""
        self.low.assign(low)
        self.high.assign(high)
        if self.stretch is not None:
            self.stretch.assign(ops.zeros((2,)))

    def ends(self) -> tuple[Any, Any]:
        """Return the ends of the current range, two scalars that are equal before the first batch."""
        low, high = ops.convert_to_tensor(self.low), ops.convert_to_tensor(self.high)
        if self.stretch is None:
            return low, high
        factor = ops.exp(ops.convert_to_tensor(self.stretch))
        return low * factor[0], high * factor[1]

    def numbers(self) -> tuple[float, float]:
        """Return the ends of the current range as numbers, outside of any graph."""
        low, high = (float(ops.convert_to_numpy(end)) for end in self.ends())
        return low, high

    def call(self, values: Any, watching: Any = None) -> Any:
        """Return fake-quantized values, or the values themselves before the first batch.

        The scalar ``watching`` says whether this batch updates the range; None: no.
        """
        wide = ops.cast(values, "float32")
        if watching is not None:
            self._update(ops.stop_gradient(wide), watching)
        low, high = self.ends()
        if self.learned:
            # LSQ, section 2.2: scaled by 1 / sqrt(127 n), since the gradients of all n values add up in one number.
            share = 1.0 / (127.0 * ops.cast(ops.size(wide), "float32")) ** 0.5
            low, high = (end * share + ops.stop_gradient(end * (1.0 - share)) for end in (low, high))
        return ops.cast(ops.where(high > low, fake_quantize(wide, low, high), wide), values.dtype)

    def compute_output_shape(self, shape: Any, *_: Any) -> Any:
        """Return the shape of the values."""
        return shape

    def _update(self, values: Any, watching: Any) -> None:
        low, high = ops.convert_to_tensor(self.low), ops.convert_to_tensor(self.high)
        weight = ops.where(ops.equal(low, high), 0.0, 1.0 if self.learned else self.momentum)
        self.low.assign(ops.where(watching, low * weight + ops.min(values) * (1.0 - weight), low))
        self.high.assign(ops.where(watching, high * weight + ops.max(values) * (1.0 - weight), high))

    def get_config(self) -> dict[str, Any]:
        """Return the configuration, without the ends."""
        return {**super().get_config(), "learned": self.learned, "momentum": self.momentum}
