"""Dense and EinsumDense: FULLY_CONNECTED, with one scale per unit. Embedding: GATHER, whose table has one range."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_precision.quantization.qat.layers.fake_quant import fake_quantize_constant
from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule, register_quantize_rule, temporarily_set
from keras_precision.quantization.qat.layers.rules.fused_activation import Activated

__all__ = ["EinsumRule", "EmbeddingRule", "output_axes"]

# ``_kernel`` and ``_embeddings`` are the variables; the public properties may add LoRA weights to them:
# https://github.com/keras-team/keras/blob/v3.15.1/keras/src/layers/core/dense.py,
# https://github.com/keras-team/keras/blob/v3.15.1/keras/src/layers/core/einsum_dense.py and
# https://github.com/keras-team/keras/blob/v3.15.1/keras/src/layers/core/embedding.py.
register_quantize_rule(keras.layers.Dense, Activated({"_kernel": (1,)}))


def output_axes(equation: str) -> tuple[int, ...]:
    """Return the axes of the kernel that are axes of the output.

    Example:
        >>> output_axes("abc,cde->abde")
        (1, 2)
    """
    (_, kernel), output = equation.partition("->")[0].split(","), equation.partition("->")[2]
    return tuple(axis for axis, letter in enumerate(kernel) if letter in output)


class EinsumRule(Activated):
    """The rule of EinsumDense, whose channels depend on its equation."""

    @contextlib.contextmanager
    def quantized_weights(self, layer: Any, precision: str, active: Any) -> Iterator[None]:
        """Fake-quantize the kernel within the block."""
        inner = QuantizeRule({"_kernel": output_axes(layer.equation)}, narrow=self.narrow)
        with inner.quantized_weights(layer, precision, active):
            yield


register_quantize_rule(keras.layers.EinsumDense, EinsumRule({"_kernel": ()}))


class EmbeddingRule(QuantizeRule):
    """The rule of Embedding, whose output is rows of a table that is already quantized."""

    @contextlib.contextmanager
    def quantized_weights(self, layer: Any, precision: str, active: Any) -> Iterator[None]:
        """Fake-quantize the table within the block."""
        table = layer._embeddings
        with temporarily_set(layer, "_embeddings", active(table, fake_quantize_constant(table))):
            yield


register_quantize_rule(keras.layers.Embedding, EmbeddingRule({"_embeddings": ()}, output="kept", narrow=False))
