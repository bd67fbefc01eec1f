"""Dense: FULLY_CONNECTED, with a scale for each unit."""

import keras

from keras_precision._adapters.aware.kinds.activated import Activated
from keras_precision._adapters.aware.rule import register_quantize_rule

register_quantize_rule(keras.layers.Dense, Activated({"_kernel": (1,)}))
