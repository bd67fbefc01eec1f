"""Numbers as integers stand for them, with gradients that pass the rounding: the same on every backend."""

from typing import Any

from keras import ops

__all__ = ["SIGNED_UNIT", "UNIT", "on_grid", "on_table_grid", "on_weight_grid", "rounded"]

UNIT = (0.0, 255 / 256)
"""What SOFTMAX and LOGISTIC write in 8 bits: their kernels have no other scale."""

SIGNED_UNIT = (-1.0, 127 / 128)
"""What TANH writes in 8 bits."""

_LEAST = 1e-9  # a range of nothing still has a scale: AI Edge Quantizer's own bound


def rounded(values: Any) -> Any:
    """Return whole numbers, with the gradient of no rounding (the straight-through estimator).

    Bengio and others, Estimating or Propagating Gradients Through Stochastic Neurons, 2013, section 3.

    Args:
        values: A tensor of floats.

    Returns:
        A tensor of its shape.
    """
    return values + ops.stop_gradient(ops.round(values) - values)


def on_grid(values: Any, low: Any, high: Any) -> Any:
    """Return what 8-bit integers with a zero point make of activations.

    ``scale = (high - low) / 255``, ``zero = round(-128 - low / scale)``,
    ``scale * (clip(round(x / scale) + zero, -128, 127) - zero)``, as AI Edge Quantizer and the
    integer kernels compute it; zero always lies in the range. The gradient passes to values within
    the range, and to the range as in S. Esser and others, Learned Step Size Quantization, 2020,
    equation 3.

    Args:
        values: A tensor in float32.
        low: The lower end of the range, a scalar.
        high: The upper end.

    Returns:
        A tensor of the shape of ``values``.
    """
    low, high = ops.minimum(low, 0.0), ops.maximum(high, 0.0)
    scale = ops.maximum(high - low, _LEAST) / 255.0
    zero = ops.stop_gradient(ops.round(-128.0 - low / scale))
    return rounded(ops.clip(values / scale, -128.0 - zero, 127.0 - zero)) * scale


def on_weight_grid(weights: Any, channels: tuple[int, ...], levels: int) -> Any:
    """Return what symmetric integers make of weights, with a scale for each channel.

    ``scale = max|w| / levels``. A batch normalization that is folded into the weights multiplies each
    output channel by one number, and so changes the scale alone: ``Q(s w) = s Q(w)``. Weights that
    are quantized before their normalization are therefore those that the folded kernel has.

    Args:
        weights: A tensor.
        channels: The axes that are kept apart.
        levels: The largest integer: 127, or 7 for 4 bits.

    Returns:
        A tensor of its shape, in float32; its gradient is that of ``weights``.
    """
    weights = ops.cast(weights, "float32")
    rank = len(weights.shape)
    kept = {axis % rank for axis in channels}
    others = [axis for axis in range(rank) if axis not in kept]
    bound = ops.max(ops.abs(weights), axis=others, keepdims=True) if others else ops.abs(weights)
    scale = ops.stop_gradient(ops.maximum(bound, _LEAST) / levels)
    return rounded(weights / scale) * scale


def on_table_grid(table: Any) -> Any:
    """Return what 8-bit integers make of a constant that its kernel treats as an activation.

    Args:
        table: A tensor.

    Returns:
        A tensor of its shape, in float32; its gradient is that of ``table``.
    """
    table = ops.cast(table, "float32")
    return on_grid(table, ops.stop_gradient(ops.min(table)), ops.stop_gradient(ops.max(table)))
