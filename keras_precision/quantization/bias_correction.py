"""Bias correction: what quantized weights add to each channel in the mean, taken out of its bias."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.formats.deployment import DEPLOYMENT_PRECISIONS
from keras_precision.quantization.calibration import Calibration
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["corrected"]

Array = npt.NDArray[Any]


def corrected(content: bytes, formats: Sequence[str], calibration: Calibration) -> bytes:
    """Return a float file whose biases make up for the rounding of its weights.

    Rounded weights W' change the mean of a channel by (W' - W) E[x], which is taken from its bias
    (M. Nagel and others, Data-Free Quantization through Weight Equalization and Bias Correction,
    2019, section 4.2). The mean of the input comes from the calibration data, so that no
    distribution is assumed; the zeros around an image are not counted.

    Args:
        content: A float file.
        formats: The number format of each operator.
        calibration: The values that its activations take.

    Returns:
        The file with other biases. Operators without a bias are left as they are.
    """
    graph = Flatbuffer(content)
    for operator, precision in zip(graph.operators, formats, strict=True):
        kernel = graph.kernel(operator)
        if not DEPLOYMENT_PRECISIONS[precision].needs_ranges or kernel not in _MEANS or len(operator.inputs) < 3:
            continue
        source, weights, bias = (int(number) for number in operator.inputs[:3])
        values, seen = graph.constant(weights), calibration.seen.get(graph.name(source))
        offsets = graph.constant(bias)
        if values is None or offsets is None or seen is None or not seen.mean.size:
            continue
        channels, along = _MEANS[kernel]
        in_bytes = precision == "int4" and kernel == "DEPTHWISE_CONV_2D"  # which has no 4-bit kernel
        levels = DEPLOYMENT_PRECISIONS["int8" if in_bytes else precision].largest_weight
        error = _rounded(values, channels % values.ndim, levels) - values
        multiplied = values.shape[-1] // seen.mean.size if kernel == "DEPTHWISE_CONV_2D" else 1
        mean = np.repeat(seen.mean, multiplied)
        if error.shape[along] != mean.size:  # a dense layer behind a flattened image sees no channels
            continue
        shape = [1] * error.ndim
        shape[along] = mean.size
        shift = (error * mean.reshape(shape)).sum(
            axis=tuple(axis for axis in range(error.ndim) if axis != channels % error.ndim)
        )
        graph.set_constant(bias, offsets - shift.astype(np.float32))
    return graph.content()


_MEANS = {"CONV_2D": (0, -1), "FULLY_CONNECTED": (0, -1), "DEPTHWISE_CONV_2D": (-1, -1)}
"""Kernel to the axis of its weights along which the output channels lie, and that of the input channels."""


def _rounded(weights: Array, axis: int, levels: int) -> Array:
    """The weights as their integers stand for them, with a scale for each channel."""
    others = tuple(each for each in range(weights.ndim) if each != axis)
    scale = np.abs(weights).max(axis=others, keepdims=True) / levels
    scale = np.where(scale > 0, scale, 1.0)
    return (np.round(weights / scale) * scale).astype(np.float32)
