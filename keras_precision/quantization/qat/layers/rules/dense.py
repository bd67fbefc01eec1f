"""Dense and EinsumDense: FULLY_CONNECTED, with a scale for each unit. Embedding: GATHER, whose table has one range."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_precision.quantization.qat.layers.fake_quant import on_table_grid
from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule, register_quantize_rule, swapped
from keras_precision.quantization.qat.layers.rules.fused_activation import Activated

__all__ = ["EinsumRule", "EmbeddingRule", "output_axes"]

register_quantize_rule(keras.layers.Dense, Activated({"_kernel": (1,)}))


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


class EmbeddingRule(QuantizeRule):
    """The rows of a rounded table need no rounding again."""

    @contextlib.contextmanager
    def quantized_weights(self, layer: Any, precision: str, active: Any) -> Iterator[None]:
        """Put the table on its grid for a while."""
        table = layer._embeddings
        with swapped(layer, "_embeddings", active(table, on_table_grid(table))):
            yield


register_quantize_rule(keras.layers.Embedding, EmbeddingRule({"_embeddings": ()}, output="kept", narrow=False))
