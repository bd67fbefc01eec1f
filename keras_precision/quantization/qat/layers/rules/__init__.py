"""The built-in rules, by kind of layer; importing this package registers them."""

from keras_precision.quantization.qat.layers.rules import (
    activation,
    attention,
    convolution,
    dense,
    layer_scale,
    normalization,
    passthrough,
    pooling,
    recurrent,
)

__all__ = [
    "activation",
    "attention",
    "convolution",
    "dense",
    "layer_scale",
    "normalization",
    "passthrough",
    "pooling",
    "recurrent",
]
