"""Activated: the rule of layers with an activation function, fused into their kernel or not."""

from typing import Any

import keras
from keras import ops

from keras_precision.quantization.qat.layers.fake_quant import UNIT, fake_quantize
from keras_precision.quantization.qat.layers.quantize_rule import Output, Quantize, QuantizeRule, temporarily_set

__all__ = ["Activated", "apply_activation", "function_name", "output_of_function"]

_FUSED = ("linear", "relu", "relu6")
_FIXED: dict[str, Output] = {"softmax": "unit", "sigmoid": "unit", "tanh": "signed_unit"}


class Activated(QuantizeRule):
    """The rule of a layer with an activation, whose input is quantized where the kernel does not fuse it."""

    def output_of(self, layer: Any) -> Output:
        """Return the fixed range of the activation, if it has one."""
        return output_of_function(layer.activation)

    def inner(self, layer: Any) -> tuple[str, ...]:
        """Return the input of an activation with an operator of its own."""
        return () if function_name(layer.activation) in _FUSED else ("linear",)

    def call(self, layer: Any, quantize: Quantize, *inputs: Any, **kwargs: Any) -> Any:
        """Compute the layer without its activation, then the activation."""
        function = layer.activation
        if not self.inner(layer):
            return layer(*inputs, **kwargs)
        with temporarily_set(layer, "activation", keras.activations.linear):
            linear = layer(*inputs, **kwargs)
        return apply_activation(function, quantize("linear", linear))


def function_name(function: Any) -> str:
    """Return the name of an activation function in Keras, of which None is ``"linear"``."""
    known = keras.activations.get(function)
    return str(getattr(known, "__name__", type(known).__name__))


def output_of_function(function: Any) -> Output:
    """Return the fixed range of an activation function, or ``"own"``."""
    return _FIXED.get(function_name(function), "own")


def apply_activation(function: Any, values: Any) -> Any:
    """Apply an activation function like the integer kernels, without quantizing the output."""
    if function_name(function) in ("silu", "swish"):  # LOGISTIC, then MUL
        gate = fake_quantize(ops.cast(ops.sigmoid(values), "float32"), *UNIT)
        return values * ops.cast(gate, values.dtype)
    return function(values)
