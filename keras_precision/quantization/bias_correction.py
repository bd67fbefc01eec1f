"""Bias correction: the mean error that quantized weights add to a channel is subtracted from its bias."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_precision.core.formats.deployment import DEPLOYMENT_PRECISIONS
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.format_assignment import weight_precision
from keras_precision.quantization.layer_inputs import BIAS
from keras_precision.quantization.weight_rounding import RoundedWeights
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["apply_bias_correction"]

Array = npt.NDArray[Any]

_WEIGHT_AXES = {"CONV_2D": (0, -1), "FULLY_CONNECTED": (0, -1), "DEPTHWISE_CONV_2D": (-1, -1)}
"""Kernel to the axis of the output channels in its weights, and the axis of the input channels."""


class _Layer(NamedTuple):
    """What the operators of one layer have in common: a layer that is called again, step by step, is several operators."""

    weights: int
    bias: int
    precision: str
    kernel: str


def apply_bias_correction(
    content: bytes,
    formats: Sequence[str],
    calibration: Calibration,
    weights: Mapping[int, RoundedWeights] = MappingProxyType({}),
    *,
    per_channel: bool = True,
) -> bytes:
    """Return a float file whose biases compensate the rounding of its weights, for the formats of its operators.

    Rounded weights W' change the mean of a channel by (W' - W) E[x], which is subtracted from its bias
    (M. Nagel and others, Data-Free Quantization through Weight Equalization and Bias Correction,
    2019, section 4.2). The mean of the input comes from the calibration data, so that no
    distribution is assumed; the zeros around an image are not counted. Layers often share one constant, such as a bias
    of zeros, so each gets a bias of its own; the calls of one layer keep theirs, corrected by the mean of their inputs.
    Weights that are not in ``weights`` are rounded to the nearest, with one scale for each output, which dense layers have
    only if ``per_channel``; of those in it the shift is known.
    """
    graph = Flatbuffer(content)
    numbers = {id(operator): number for number, operator in enumerate(graph.operators)}
    for layer, operators in _layers(graph, formats).items():
        bias = graph.constant(layer.bias)
        # A bias for every step of an unrolled recurrent layer would cost more bytes than it is worth.
        if bias is None and (layer.bias >= 0 or len(operators) > 1):
            continue
        rounded = weights.get(numbers[id(operators[0])])
        one_scale = not per_channel and layer.kernel == "FULLY_CONNECTED"
        if rounded is not None:
            shift: Array | None = rounded.shift
        else:
            shift = _mean_shift(graph, layer, operators, calibration, one_scale=one_scale)
        if shift is None:
            continue
        corrected = (0 if bias is None else bias) - shift.astype(np.float32)
        if bias is None:
            graph.add_constant(operators[0], BIAS, corrected)
        else:
            graph.set_constant(graph.own_constant(operators, BIAS), corrected)
    return graph.content()


def _layers(graph: Flatbuffer, formats: Sequence[str]) -> dict[_Layer, list[Any]]:
    """Return the operators with integer activations and constant weights, by what they have in common."""
    layers: dict[_Layer, list[Any]] = {}
    for operator, precision in zip(graph.operators, formats, strict=True):
        kernel = graph.kernel(operator)
        if DEPLOYMENT_PRECISIONS[precision].needs_ranges and kernel in _WEIGHT_AXES:
            _, weights, bias, *_ = (*map(int, operator.inputs), -1)
            layers.setdefault(_Layer(weights, bias, precision, kernel), []).append(operator)
    return layers


def _input_mean(graph: Flatbuffer, operator: Any, calibration: Calibration) -> Array | None:
    statistics = calibration.seen.get(graph.name(int(operator.inputs[0])))
    return statistics.mean if statistics is not None and statistics.mean.size else None


def _mean_shift(
    graph: Flatbuffer, layer: _Layer, operators: Sequence[Any], calibration: Calibration, *, one_scale: bool
) -> Array | None:
    """Return what rounding the weights adds to the mean of every channel; None where the input has other channels."""
    weights = graph.constant(layer.weights)
    means = [mean for operator in operators if (mean := _input_mean(graph, operator, calibration)) is not None]
    if weights is None or len(means) < len(operators):
        return None
    mean = np.mean(means, axis=0)
    output_axis, input_axis = (axis % weights.ndim for axis in _WEIGHT_AXES[layer.kernel])
    levels = DEPLOYMENT_PRECISIONS[weight_precision(layer.kernel, layer.precision)].largest_weight
    error = _nearest(weights, None if one_scale else output_axis, levels) - weights
    if layer.kernel == "DEPTHWISE_CONV_2D":
        mean = np.repeat(mean, weights.shape[-1] // mean.size)
    if error.shape[input_axis] != mean.size:  # a dense layer after a flattened image has no channels to average
        return None
    shape = [1] * error.ndim
    shape[input_axis] = mean.size
    others = tuple(axis for axis in range(error.ndim) if axis != output_axis)
    return np.asarray((error * mean.reshape(shape)).sum(axis=others))


def _nearest(weights: Array, axis: int | None, levels: int) -> Array:
    """Return the real numbers that symmetric integers with one scale per channel, or without an axis with one, represent."""
    reduced = tuple(other for other in range(weights.ndim) if other != axis)
    scale = np.abs(weights).max(axis=reduced, keepdims=True) / levels
    scale = np.where(scale > 0, scale, 1.0)
    return (np.round(weights / scale) * scale).astype(np.float32)
