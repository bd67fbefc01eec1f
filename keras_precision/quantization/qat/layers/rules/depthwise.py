"""Depthwise convolutions: DEPTHWISE_CONV_2D, with a scale for each channel; 4 bits have no kernel."""

import keras

from keras_precision.quantization.qat.layers.quantize_rule import register_quantize_rule
from keras_precision.quantization.qat.layers.rules.fused_activation import Activated

for _each in (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D):
    register_quantize_rule(_each, Activated({"kernel": (-2, -1)}, narrow=False))
