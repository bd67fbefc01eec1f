"""Recurrent layers: unrolled, their products are FULLY_CONNECTED; as a loop, the file computes them in float."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule, register_quantize_rule

__all__ = ["RecurrentRule"]

_KERNELS = {"kernel": (-1,), "recurrent_kernel": (-1,)}


class RecurrentRule(QuantizeRule):
    """Rounds the kernels of the cells, and the output.

    What a cell computes from step to step has a range for each step in the file, which ``kp.calibrate`` chooses when
    the file is written: training does not follow it.

    Args:
        cells: Attributes that lead to the cells.
    """

    def __init__(self, *cells: str) -> None:
        super().__init__({f"{cell}.{name}": axes for cell in cells for name, axes in _KERNELS.items()})

    @contextlib.contextmanager
    def quantized_weights(self, layer: Any, precision: str, active: Any) -> Iterator[None]:
        """Put the kernels on their grids for a while, where the layer is unrolled."""
        first = layer.forward_layer if isinstance(layer, keras.layers.Bidirectional) else layer
        if not first.unroll:
            yield
            return
        with super().quantized_weights(layer, precision, active):
            yield


for _kind in (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN):
    register_quantize_rule(_kind, RecurrentRule("cell"))
register_quantize_rule(keras.layers.Bidirectional, RecurrentRule("forward_layer.cell", "backward_layer.cell"))
