"""Embedding: GATHER, whose table is quantized as an activation is, with one range."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_precision.quantization.qat.layers.fake_quant import on_table_grid
from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule, register_quantize_rule, swapped

__all__ = ["EmbeddingRule"]


class EmbeddingRule(QuantizeRule):
    """The rows of a rounded table need no rounding again."""

    @contextlib.contextmanager
    def quantized_weights(self, layer: Any, precision: str, active: Any) -> Iterator[None]:
        """Put the table on its grid for a while."""
        table = layer._embeddings
        with swapped(layer, "_embeddings", active(table, on_table_grid(table))):
            yield


register_quantize_rule(keras.layers.Embedding, EmbeddingRule({"_embeddings": ()}, output="kept", narrow=False))
