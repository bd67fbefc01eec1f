"""Recurrent layers: unrolled, their products are FULLY_CONNECTED; the file computes loops in float."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule, register_quantize_rule

__all__ = ["RecurrentRule"]

_KERNELS = {"kernel": (-1,), "recurrent_kernel": (-1,)}


class RecurrentRule(QuantizeRule):
    """The rule of recurrent layers, by the attributes of their cells: kernels and output are quantized.

    Activations inside a cell have one range per time step in the file, which ``kp.calibrate`` estimates at the export.
    """

    def __init__(self, *cells: str) -> None:
        super().__init__({f"{cell}.{name}": axes for cell in cells for name, axes in _KERNELS.items()})

    @contextlib.contextmanager
    def quantized_weights(self, layer: Any, precision: str, active: Any) -> Iterator[None]:
        """Fake-quantize the kernels within the block, where the layer is unrolled."""
        first = layer.forward_layer if isinstance(layer, keras.layers.Bidirectional) else layer
        if not first.unroll:
            yield
            return
        with super().quantized_weights(layer, precision, active):
            yield


for _layer_class in (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN):
    register_quantize_rule(_layer_class, RecurrentRule("cell"))
register_quantize_rule(keras.layers.Bidirectional, RecurrentRule("forward_layer.cell", "backward_layer.cell"))
