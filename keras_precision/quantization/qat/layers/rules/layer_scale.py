"""LayerScale of ConvNeXt: one factor a channel, which the kernel before takes in, or a MUL with a constant."""

import contextlib
from collections.abc import Iterator
from typing import Any

from keras.src.applications.convnext import LayerScale  # Keras has no public name for it

from keras_precision.quantization.qat.layers.fake_quant import on_table_grid
from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule, register_quantize_rule, swapped

__all__ = ["LayerScaleRule"]


class LayerScaleRule(QuantizeRule):
    """The factors on their own are a constant that its kernel treats as an activation."""

    folds = True

    @contextlib.contextmanager
    def quantized_weights(self, layer: Any, precision: str, active: Any) -> Iterator[None]:
        """Put the factors on their grid for a while."""
        with swapped(layer, "gamma", active(layer.gamma, on_table_grid(layer.gamma))):
            yield


register_quantize_rule(LayerScale, LayerScaleRule())
