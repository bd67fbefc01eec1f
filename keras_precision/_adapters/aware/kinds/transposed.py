"""Transposed convolutions: TRANSPOSE_CONV, with a scale for each filter; 4 bits have no kernel."""

import keras

from keras_precision._adapters.aware.kinds.activated import Activated
from keras_precision._adapters.aware.rule import register_quantize_rule

for _each in (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose):
    register_quantize_rule(_each, Activated({"_kernel": (-2,)}, narrow=False))
