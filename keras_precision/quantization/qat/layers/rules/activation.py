"""Rules of layers that are an activation function."""

from typing import Any

import keras

from keras_precision.quantization.qat.layers.quantize_rule import Output, Quantize, QuantizeRule, register_quantize_rule
from keras_precision.quantization.qat.layers.rules.fused_activation import apply_activation, output_of_function

__all__ = ["ActivationRule"]


class ActivationRule(QuantizeRule):
    """The rule of ``Activation``, whose range depends on its function."""

    def output_of(self, layer: Any) -> Output:
        """Return the fixed range of the function, if it has one."""
        return output_of_function(layer.activation)

    def call(self, layer: Any, quantize: Quantize, *inputs: Any, **kwargs: Any) -> Any:
        """Apply the function like the integer kernels."""
        return apply_activation(layer.activation, inputs[0])


register_quantize_rule(keras.layers.Activation, ActivationRule())
register_quantize_rule(keras.layers.Softmax, QuantizeRule(output="unit"))
register_quantize_rule(keras.layers.PReLU, QuantizeRule())  # every engine leaves the slopes of PRELU in float
