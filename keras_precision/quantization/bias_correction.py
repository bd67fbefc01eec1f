"""Bias correction: the mean error that quantized weights add to a channel is subtracted from its bias."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.formats.deployment import DEPLOYMENT_PRECISIONS
from keras_precision.quantization.calibration import Calibration
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["apply_bias_correction"]

Array = npt.NDArray[Any]


def apply_bias_correction(content: bytes, formats: Sequence[str], calibration: Calibration) -> bytes:
    """Return a float file whose biases compensate the rounding of its weights, for the formats of its operators.

    Rounded weights W' change the mean of a channel by (W' - W) E[x], which is subtracted from its bias
    (M. Nagel and others, Data-Free Quantization through Weight Equalization and Bias Correction,
    2019, section 4.2). The mean of the input comes from the calibration data, so that no
    distribution is assumed; the zeros around an image are not counted.
    """
    graph = Flatbuffer(content)
    for operator, precision in zip(graph.operators, formats, strict=True):
        kernel = graph.kernel(operator)
        if not DEPLOYMENT_PRECISIONS[precision].needs_ranges or kernel not in _WEIGHT_AXES or len(operator.inputs) < 3:
            continue
        source, weights_number, bias_number = (int(number) for number in operator.inputs[:3])
        weights, bias = graph.constant(weights_number), graph.constant(bias_number)
        statistics = calibration.seen.get(graph.name(source))
        if weights is None or bias is None or statistics is None or not statistics.mean.size:
            continue
        output_axis, input_axis = _WEIGHT_AXES[kernel]
        in_bytes = precision == "int4" and kernel == "DEPTHWISE_CONV_2D"  # which has no 4-bit kernel
        levels = DEPLOYMENT_PRECISIONS["int8" if in_bytes else precision].largest_weight
        error = _fake_quantized(weights, output_axis % weights.ndim, levels) - weights
        multiplier = weights.shape[-1] // statistics.mean.size if kernel == "DEPTHWISE_CONV_2D" else 1
        mean = np.repeat(statistics.mean, multiplier)
        if error.shape[input_axis] != mean.size:  # a dense layer after a flattened image has no channels to average
            continue
        shape = [1] * error.ndim
        shape[input_axis] = mean.size
        shift = (error * mean.reshape(shape)).sum(
            axis=tuple(axis for axis in range(error.ndim) if axis != output_axis % error.ndim)
        )
        graph.set_constant(bias_number, bias - shift.astype(np.float32))
    return graph.content()


_WEIGHT_AXES = {"CONV_2D": (0, -1), "FULLY_CONNECTED": (0, -1), "DEPTHWISE_CONV_2D": (-1, -1)}
"""Kernel to the axis of the output channels in its weights, and the axis of the input channels."""


def _fake_quantized(weights: Array, axis: int, levels: int) -> Array:
    """Return the real numbers that symmetric integers with one scale per channel represent."""
    reduced = tuple(other for other in range(weights.ndim) if other != axis)
    scale = np.abs(weights).max(axis=reduced, keepdims=True) / levels
    scale = np.where(scale > 0, scale, 1.0)
    return (np.round(weights / scale) * scale).astype(np.float32)
