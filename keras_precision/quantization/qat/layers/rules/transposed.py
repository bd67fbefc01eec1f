"""Transposed convolutions: TRANSPOSE_CONV, with a scale for each filter; 4 bits have no kernel."""

import keras

from keras_precision.quantization.qat.layers.quantize_rule import register_quantize_rule
from keras_precision.quantization.qat.layers.rules.fused_activation import Activated

for _each in (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose):
    register_quantize_rule(_each, Activated({"_kernel": (-2,)}, narrow=False))
