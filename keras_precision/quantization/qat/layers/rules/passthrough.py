"""Layers that move or select values, whose output has the scale of their input."""

import keras

from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule, register_quantize_rule

_NAMES = """
Flatten Reshape Permute RepeatVector Identity Masking
Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D AlphaDropout GaussianDropout GaussianNoise ActivityRegularization
ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D UpSampling1D UpSampling3D
MaxPooling1D MaxPooling2D MaxPooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
"""

for _name in _NAMES.split():
    register_quantize_rule(getattr(keras.layers, _name), QuantizeRule(output="kept"))
