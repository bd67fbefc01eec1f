"""Normalization: a batch normalization that does not fold into a convolution is a MUL and an ADD with constants."""

from typing import Any

import keras
from keras import ops

from keras_precision.quantization.qat.layers.fake_quant import fake_quantize_constant
from keras_precision.quantization.qat.layers.quantize_rule import Quantize, QuantizeRule, register_quantize_rule

__all__ = ["BatchNormalizationRule", "NormalizationRule"]


class BatchNormalizationRule(QuantizeRule):
    """The rule of a batch normalization: the error of the integer kernels is added to its output.

    The error is computed with the moving statistics, which the kernels use; training normalizes by those of the batch.
    """

    folds = True

    def inner(self, layer: Any) -> tuple[str, ...]:
        """Return the product, before the constant is added."""
        return ("scaled",)

    def call(self, layer: Any, quantize: Quantize, *inputs: Any, **kwargs: Any) -> Any:
        """Normalize with the error of the kernels."""
        return self.with_error(layer, quantize, inputs[0], layer(*inputs, **kwargs))

    def with_error(self, layer: Any, quantize: Quantize, values: Any, normalized: Any) -> Any:
        """Return normalized values plus the error of the kernels, which use the moving statistics."""
        factor, shift = _constants(layer, len(values.shape))
        wide = ops.cast(values, "float32")
        exact = wide * factor + shift
        error = quantize("scaled", wide * fake_quantize_constant(factor)) + fake_quantize_constant(shift) - exact
        return normalized + ops.cast(ops.stop_gradient(error), normalized.dtype)


class NormalizationRule(QuantizeRule):
    """The rule of ``Normalization``: a SUB and a MUL with constants, or a MUL and an ADD where it inverts.

    The converter removes constants without effect from the file.
    """

    folds = True

    def inner(self, layer: Any) -> tuple[str, ...]:
        """Return what the first of the two operators computes."""
        return ("scaled",) if layer.invert else ("shifted",)

    def call(self, layer: Any, quantize: Quantize, *inputs: Any, **kwargs: Any) -> Any:
        """Normalize with the kernels' constants, which are quantized like activations."""
        mean, scale = (
            ops.cast(ops.convert_to_tensor(values), "float32")
            for values in (layer.mean, ops.maximum(ops.sqrt(layer.variance), keras.config.epsilon()))
        )
        mean, wide = fake_quantize_constant(mean), ops.cast(inputs[0], "float32")
        if layer.invert:
            normalized = quantize("scaled", wide * fake_quantize_constant(scale)) + mean
        else:
            normalized = quantize("shifted", wide - mean) * fake_quantize_constant(1.0 / scale)
        return ops.cast(normalized, layer.compute_dtype)


def _constants(layer: Any, rank: int) -> tuple[Any, Any]:
    """Return factor and shift of every channel, in the shape that broadcasts."""
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
