"""Convolutions: CONV_2D, with a scale for each filter."""

import keras

from keras_precision._adapters.aware.kinds.activated import Activated
from keras_precision._adapters.aware.rule import register_quantize_rule

for _each in (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D):
    register_quantize_rule(_each, Activated({"_kernel": (-1,)}))
