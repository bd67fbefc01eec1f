"""Layers that compute averages, which the kernels quantize in the scale of the input."""

from typing import Any

import keras

from keras_precision.quantization.qat.layers.quantize_rule import Output, QuantizeRule, register_quantize_rule

__all__ = ["UpSamplingRule"]


class UpSamplingRule(QuantizeRule):
    """The rule of UpSampling2D: repeated values need no rounding, interpolated ones do."""

    def output_of(self, layer: Any) -> Output:
        """Return the kind of output for the interpolation of the layer."""
        return "kept" if layer.interpolation == "nearest" else "source"


for _layer_class in (keras.layers.AveragePooling1D, keras.layers.AveragePooling2D):
    register_quantize_rule(_layer_class, QuantizeRule(output="source"))
register_quantize_rule(keras.layers.UpSampling2D, UpSamplingRule())
