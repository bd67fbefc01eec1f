"""Convolutions: CONV_2D, with a scale for each filter."""

import keras

from keras_precision.quantization.qat.layers.quantize_rule import register_quantize_rule
from keras_precision.quantization.qat.layers.rules.fused_activation import Activated

for _each in (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D):
    register_quantize_rule(_each, Activated({"_kernel": (-1,)}))
