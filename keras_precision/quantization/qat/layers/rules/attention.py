"""MultiHeadAttention: four FULLY_CONNECTED, with a scale for each number that they put out."""

import keras

from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule, register_quantize_rule

# Kernels of shape (features, heads, size), and (heads, size, features) at the end. What lies between
# them is not followed in training: those activations get the ranges of the export's own calibration.
_INTO, _OUT = (-2, -1), (-1,)

register_quantize_rule(
    keras.layers.MultiHeadAttention,
    QuantizeRule(
        {
            "_query_dense._kernel": _INTO,
            "_key_dense._kernel": _INTO,
            "_value_dense._kernel": _INTO,
            "_output_dense._kernel": _OUT,
        }
    ),
)
