"""How each kind of layer computes in integers: one small file each, which registers itself."""

from keras_precision._adapters.aware.kinds import (
    activation,
    attention,
    convolution,
    dense,
    depthwise,
    einsum,
    embedding,
    moving,
    normalization,
    pooling,
    recurrent,
    scale,
    separable,
    transposed,
)

__all__ = [
    "activation",
    "attention",
    "convolution",
    "dense",
    "depthwise",
    "einsum",
    "embedding",
    "moving",
    "normalization",
    "pooling",
    "recurrent",
    "scale",
    "separable",
    "transposed",
]
