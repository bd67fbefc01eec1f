"""Normalization: a batch normalization that no convolution takes in is a MUL and an ADD with constants."""

from typing import Any

import keras
from keras import ops

from keras_precision.quantization.qat.layers.fake_quant import on_table_grid
from keras_precision.quantization.qat.layers.quantize_rule import Quantize, QuantizeRule, register_quantize_rule

__all__ = ["BatchNormalizationRule", "NormalizationRule"]


class BatchNormalizationRule(QuantizeRule):
    """Adds what the integer kernels are off by, computed with the moving statistics that they will have.

    In training the layer normalizes with the statistics of the batch, which no kernel has.
    """

    folds = True

    def inner(self, layer: Any) -> tuple[str, ...]:
        """Return the product, before the constant is added."""
        return ("scaled",)

    def call(self, layer: Any, quantize: Quantize, *inputs: Any, **kwargs: Any) -> Any:
        """Normalize as the kernels do."""
        return self.with_error(layer, quantize, inputs[0], layer(*inputs, **kwargs))

    def with_error(self, layer: Any, quantize: Quantize, values: Any, normalized: Any) -> Any:
        """Add the error of the kernels to what the layer computed.

        Args:
            layer: A batch normalization.
            quantize: Puts the product on its grid.
            values: What was normalized.
            normalized: What came of it.

        Returns:
            What the kernels compute, where the moving statistics were used.
        """
        factor, shift = _constants(layer, len(values.shape))
        wide = ops.cast(values, "float32")
        exact = wide * factor + shift
        off = quantize("scaled", wide * on_table_grid(factor)) + on_table_grid(shift) - exact
        return normalized + ops.cast(ops.stop_gradient(off), normalized.dtype)


class NormalizationRule(QuantizeRule):
    """Rounds the output; constants that change nothing leave no trace in the file."""

    folds = True


def _constants(layer: Any, rank: int) -> tuple[Any, Any]:
    """Factor and shift of each channel, in the shape that broadcasts."""
    shape = [1] * rank
    shape[layer.axis] = -1

    def spread(values: Any) -> Any:
        return ops.reshape(ops.cast(values, "float32"), shape)

    factor = ops.rsqrt(spread(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        factor = factor * spread(layer.gamma)
    shift = -spread(layer.moving_mean) * factor
    return factor, shift + spread(layer.beta) if layer.center else shift


register_quantize_rule(keras.layers.BatchNormalization, BatchNormalizationRule())
register_quantize_rule(keras.layers.LayerNormalization, QuantizeRule())
register_quantize_rule(keras.layers.GroupNormalization, QuantizeRule())
register_quantize_rule(keras.layers.Normalization, NormalizationRule())
