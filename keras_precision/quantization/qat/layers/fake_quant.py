"""Fake quantization with gradients that pass the rounding, the same on every backend."""

from typing import Any

from keras import ops

__all__ = [
    "SIGNED_UNIT",
    "UNIT",
    "fake_quantize",
    "fake_quantize_constant",
    "fake_quantize_weights",
    "round_straight_through",
]

UNIT = (0.0, 255 / 256)
"""The range of SOFTMAX and LOGISTIC in 8 bits, whose kernels have no other scale."""

SIGNED_UNIT = (-1.0, 127 / 128)
"""The range of TANH in 8 bits."""

_MIN_WIDTH = 1e-9  # so that an empty range has a scale, too: the bound of AI Edge Quantizer


def round_straight_through(values: Any) -> Any:
    """Return rounded values with the gradient of the identity, the straight-through estimator.

    Bengio and others, Estimating or Propagating Gradients Through Stochastic Neurons, 2013, section 3.
    """
    return values + ops.stop_gradient(ops.round(values) - values)


def fake_quantize(values: Any, low: Any, high: Any) -> Any:
    """Return float32 activations as 8-bit integers with a zero point represent them, in a range of two scalars.

    ``scale = (high - low) / 255``, ``zero = round(-128 - low / scale)``,
    ``scale * (clip(round(x / scale) + zero, -128, 127) - zero)``, as AI Edge Quantizer and the
    integer kernels compute it; the range is extended to zero. The gradient passes to values within
    the range, and to the range as in S. Esser and others, Learned Step Size Quantization, 2020,
    equation 3.
    """
    low, high = ops.minimum(low, 0.0), ops.maximum(high, 0.0)
    scale = ops.maximum(high - low, _MIN_WIDTH) / 255.0
    zero = ops.stop_gradient(ops.round(-128.0 - low / scale))
    return round_straight_through(ops.clip(values / scale, -128.0 - zero, 127.0 - zero)) * scale


def fake_quantize_weights(weights: Any, channels: tuple[int, ...], levels: int) -> Any:
    """Return weights in float32 as symmetric integers up to ``levels`` represent them, with one scale per channel.

    ``scale = max|w| / levels``. A batch normalization that is folded into the weights multiplies every
    output channel by one number, and so changes only the scale: ``Q(s w) = s Q(w)``. Weights that
    are quantized before their normalization are therefore those of the folded kernel.
    """
    weights = ops.cast(weights, "float32")
    rank = len(weights.shape)
    channel_axes = {axis % rank for axis in channels}
    others = [axis for axis in range(rank) if axis not in channel_axes]
    bound = ops.max(ops.abs(weights), axis=others, keepdims=True) if others else ops.abs(weights)
    scale = ops.stop_gradient(ops.maximum(bound, _MIN_WIDTH) / levels)
    return round_straight_through(weights / scale) * scale


def fake_quantize_constant(table: Any) -> Any:
    """Return a constant, which its kernel treats as an activation, in float32 as 8-bit integers represent it."""
    table = ops.cast(table, "float32")
    return fake_quantize(table, ops.stop_gradient(ops.min(table)), ops.stop_gradient(ops.max(table)))
