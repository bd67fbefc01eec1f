"""LayerScale of ConvNeXt: one factor per channel, folded into the previous kernel, or a MUL with a constant."""

import contextlib
from collections.abc import Iterator
from typing import Any

# Without a public name: https://github.com/keras-team/keras/blob/v3.15.1/keras/src/applications/convnext.py.
from keras.src.applications.convnext import LayerScale

from keras_precision.quantization.qat.layers.fake_quant import fake_quantize_constant
from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule, register_quantize_rule, temporarily_set

__all__ = ["LayerScaleRule"]


class LayerScaleRule(QuantizeRule):
    """The rule of LayerScale; unfolded factors are a constant that the kernel treats as an activation."""

    folds = True

    @contextlib.contextmanager
    def quantized_weights(self, layer: Any, precision: str, active: Any) -> Iterator[None]:
        """Fake-quantize the factors within the block."""
        with temporarily_set(layer, "gamma", active(layer.gamma, fake_quantize_constant(layer.gamma))):
            yield


register_quantize_rule(LayerScale, LayerScaleRule())
