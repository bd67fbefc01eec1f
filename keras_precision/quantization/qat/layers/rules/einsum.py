"""EinsumDense: FULLY_CONNECTED, with a scale for each number that the kernel's own axes index in the output."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule, register_quantize_rule
from keras_precision.quantization.qat.layers.rules.fused_activation import Activated

__all__ = ["EinsumRule", "output_axes"]


def output_axes(equation: str) -> tuple[int, ...]:
    """Return the axes of the kernel that are axes of the output.

    Args:
        equation: Such as ``"abc,cde->abde"``.

    Returns:
        Such as ``(1, 2)``.

    Example:
        >>> output_axes("abc,cde->abde")
        (1, 2)
    """
    (_, kernel), output = equation.partition("->")[0].split(","), equation.partition("->")[2]
    return tuple(axis for axis, letter in enumerate(kernel) if letter in output)


class EinsumRule(Activated):
    """The channels depend on the equation of the layer."""

    @contextlib.contextmanager
    def quantized_weights(self, layer: Any, precision: str, active: Any) -> Iterator[None]:
        """Put the kernel on its grid for a while."""
        inner = QuantizeRule({"_kernel": output_axes(layer.equation)}, narrow=self.narrow)
        with inner.quantized_weights(layer, precision, active):
            yield


register_quantize_rule(keras.layers.EinsumDense, EinsumRule({"_kernel": ()}))
