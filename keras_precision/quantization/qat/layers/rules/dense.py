"""Dense: FULLY_CONNECTED, with a scale for each unit."""

import keras

from keras_precision.quantization.qat.layers.quantize_rule import register_quantize_rule
from keras_precision.quantization.qat.layers.rules.fused_activation import Activated

register_quantize_rule(keras.layers.Dense, Activated({"_kernel": (1,)}))
