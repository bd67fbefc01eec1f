"""Layers that compute averages of their input, which the kernels round to the input's own grid."""

from typing import Any

import keras

from keras_precision.quantization.qat.layers.quantize_rule import Output, QuantizeRule, register_quantize_rule

__all__ = ["UpSamplingRule"]


class UpSamplingRule(QuantizeRule):
    """Repeated values need no rounding, interpolated ones do."""

    def output_of(self, layer: Any) -> Output:
        """Return what the interpolation asks for."""
        return "kept" if layer.interpolation == "nearest" else "source"


for _each in (keras.layers.AveragePooling1D, keras.layers.AveragePooling2D):
    register_quantize_rule(_each, QuantizeRule(output="source"))
register_quantize_rule(keras.layers.UpSampling2D, UpSamplingRule())
