"""Activated: the rule of layers that end in an activation function, part of their kernel or not."""

from typing import Any

import keras
from keras import ops

from keras_precision.quantization.qat.layers.fake_quant import UNIT, on_grid
from keras_precision.quantization.qat.layers.quantize_rule import Output, Quantize, QuantizeRule, swapped

__all__ = ["Activated", "activated", "function_name", "output_of_function"]

_IN_THE_KERNEL = ("linear", "relu", "relu6")
_FIXED: dict[str, Output] = {"softmax": "unit", "sigmoid": "unit", "tanh": "signed_unit"}


class Activated(QuantizeRule):
    """Quantizes what stands before the activation, where the kernel of the layer does not compute it, too."""

    def output_of(self, layer: Any) -> Output:
        """Return the fixed range of the activation, if it has one."""
        return output_of_function(layer.activation)

    def inner(self, layer: Any) -> tuple[str, ...]:
        """Return what stands before an activation that has an operator of its own."""
        return () if function_name(layer.activation) in _IN_THE_KERNEL else ("linear",)

    def call(self, layer: Any, quantize: Quantize, *inputs: Any, **kwargs: Any) -> Any:
        """Compute the layer without its activation, then that."""
        function = layer.activation
        if not self.inner(layer):
            return layer(*inputs, **kwargs)
        with swapped(layer, "activation", keras.activations.linear):
            linear = layer(*inputs, **kwargs)
        return activated(function, quantize("linear", linear))


def function_name(function: Any) -> str:
    """Return what Keras calls an activation function.

    Args:
        function: The function; None is the linear one.

    Returns:
        Its name; that of the function itself where Keras does not know it.
    """
    known = keras.activations.get(function)
    return str(getattr(known, "__name__", type(known).__name__))


def output_of_function(function: Any) -> Output:
    """Return how the output of an activation function is quantized.

    Args:
        function: The function.

    Returns:
        A fixed range, or a range of its own.
    """
    return _FIXED.get(function_name(function), "own")


def activated(function: Any, values: Any) -> Any:
    """Apply an activation function as integer kernels do.

    Args:
        function: The function.
        values: A tensor.

    Returns:
        A tensor of its shape, before it is quantized.
    """
    if function_name(function) in ("silu", "swish"):  # LOGISTIC, then MUL
        gate = on_grid(ops.cast(ops.sigmoid(values), "float32"), *UNIT)
        return values * ops.cast(gate, values.dtype)
    return function(values)
