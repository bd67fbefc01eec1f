"""MultiHeadAttention: four FULLY_CONNECTED, with one scale per output."""

import keras

from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule, register_quantize_rule

# Kernels of shape (features, heads, size), and (heads, size, features) of the output. Training does not follow the
# activations between them, which get ranges from the calibration of the export. The layers are private:
# https://github.com/keras-team/keras/blob/v3.15.1/keras/src/layers/attention/multi_head_attention.py.
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
