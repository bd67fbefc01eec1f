"""Layers that are an activation function."""

from typing import Any

import keras

from keras_precision.quantization.qat.layers.quantize_rule import Output, Quantize, QuantizeRule, register_quantize_rule
from keras_precision.quantization.qat.layers.rules.fused_activation import activated, output_of_function

__all__ = ["ActivationRule"]


class ActivationRule(QuantizeRule):
    """``Activation``: the range that its function has."""

    def output_of(self, layer: Any) -> Output:
        """Return the fixed range of the function, if it has one."""
        return output_of_function(layer.activation)

    def call(self, layer: Any, quantize: Quantize, *inputs: Any, **kwargs: Any) -> Any:
        """Apply the function as integer kernels do."""
        return activated(layer.activation, inputs[0])


register_quantize_rule(keras.layers.Activation, ActivationRule())
register_quantize_rule(keras.layers.Softmax, QuantizeRule(output="unit"))
register_quantize_rule(keras.layers.PReLU, QuantizeRule())  # its slopes stay in float in every engine's PRELU
