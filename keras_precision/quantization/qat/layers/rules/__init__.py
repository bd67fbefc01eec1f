"""How each kind of layer computes in integers: one small file each, which registers itself."""

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
