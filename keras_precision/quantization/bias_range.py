"""Quantized biases in 32 bits: the scale of weights is raised for a channel whose bias would not fit otherwise."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import ExportError
from keras_precision.quantization.layer_trace import OperatorLayers
from keras_precision.quantization.weight_rounding import RoundedWeights
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer, QuantizedConstant, parse_flatbuffer

__all__ = ["BIASED_KERNELS", "check_biases", "has_saturated_bias", "raise_weight_scales", "set_weights"]

Array = npt.NDArray[Any]

BIASED_KERNELS = MappingProxyType(
    {
        "CONV_2D": (0, 1, 2),
        "DEPTHWISE_CONV_2D": (0, 1, 2),
        "FULLY_CONNECTED": (0, 1, 2),
        "TRANSPOSE_CONV": (2, 1, 3),
    }
)
"""Kernel to the positions of its input, weights and bias among its operands."""

_INT32_MAX = 2**31 - 1
_LARGEST_BIAS = _INT32_MAX // 2
"""As TFLiteConverter, which leaves the other half to the sum of products (AdjustWeightsForBiasScale in
https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/lite/tools/optimize/quantization_utils.cc)."""
_INT4_FACTOR = 16  # XNNPACK takes weights of 4 bits as the upper half of a byte, and multiplies their bias by 16, too


class _Biased(NamedTuple):
    """An operator with weights, and the tensors of its operands; -1 where it has none."""

    operator: Any
    source: int
    weights: int
    bias: int


def raise_weight_scales(quantized: Flatbuffer, exact: Flatbuffer) -> None:
    """Raise the weight scale of every channel of a quantized file whose bias, as in the float file, needs it.

    A bias is an integer of input scale times weight scale. With weights near zero (pruned, or dead after weight decay)
    that step is so small that an ordinary bias leaves 32 bits, and AI Edge Quantizer casts it to some other number. The
    weights of such a channel are too small to show beside its bias, so that a coarser scale does not harm them.
    Public reports: https://github.com/microsoft/onnxruntime/pull/22020, https://github.com/tensorflow/tensorflow/issues/33735.
    """
    pairs = list(_pairs(quantized, exact))
    required: dict[int, Array] = {}  # by the tensor of weights, which calls of a shared layer have in common
    for biased, values in pairs:
        largest = _LARGEST_BIAS / (_INT4_FACTOR if quantized.dtype(biased.weights) == "int4" else 1)
        least = np.abs(values) / (largest * _input_scale(quantized, biased))
        required[biased.weights] = np.maximum(required.get(biased.weights, 0.0), least)
    raised = {weights for weights, least in required.items() if _raise_scales(quantized, weights, least)}
    for biased, values in pairs:
        if biased.weights in raised:
            _set_bias(quantized, biased, values)


def set_weights(quantized: Flatbuffer, exact: Flatbuffer, weights: Mapping[int, RoundedWeights]) -> None:
    """Write the integers and scales of weights, by the number of their operator in the float file, and biases to match.

    Weights with one scale for all outputs stay as the quantizer has rounded them.
    """
    numbers = {id(operator): number for number, operator in enumerate(exact.operators)}
    for biased, original in _matched(quantized, exact):
        rounded, present = weights.get(numbers[id(original.operator)]), quantized.quantized_constant(biased.weights)
        if rounded is None or present is None or present.scales.size != rounded.constant.scales.size:
            continue
        quantized.set_quantized_constant(biased.weights, rounded.constant)
        values = exact.constant(original.bias)
        if values is not None and quantized.quantized_constant(biased.bias) is not None:
            _set_bias(quantized, biased, values.astype(np.float64))


def has_saturated_bias(graph: Flatbuffer) -> bool:
    """Whether a file has a bias at a limit of 32 bits, or beyond, which stands for any larger number."""
    return any(_saturated(graph, biased) for biased in _biased(graph))


def check_biases(content: bytes, layers: OperatorLayers) -> None:
    """Raise ExportError where a bias in a quantized file is saturated."""
    graph = parse_flatbuffer(content)
    owners = {id(operator): paths for operator, paths in zip(graph.operators, layers, strict=True)}
    for biased in _biased(graph):
        if _saturated(graph, biased):
            paths = owners[id(biased.operator)]
            where = f"layer '{paths[0]}'" if paths else f"operator {graph.kernel(biased.operator)}"
            raise ExportError(
                f"Expected biases that fit into 32 bits. Received: a saturated one in {where}, whose weights are tiny beside its bias. "
                "Give the layer 'float32' in the plan, or remove the channels without weights from the model."
            )


def _biased(graph: Flatbuffer) -> Iterator[_Biased]:
    for operator in graph.operators:
        if positions := BIASED_KERNELS.get(graph.kernel(operator)):
            numbers = [*map(int, operator.inputs), -1]  # a bias that is left out may be the last operand, or missing
            yield _Biased(operator, *(numbers[min(position, len(numbers) - 1)] for position in positions))


def _matched(quantized: Flatbuffer, exact: Flatbuffer) -> list[tuple[_Biased, _Biased]]:
    """Return the operators with weights of a quantized file, with those of the float file.

    A quantizer inserts operators that convert values, and keeps the order of those that compute. Files of different
    operators have none: ``check_biases`` refuses the quantized one if it needs to.
    """
    operators, originals = list(_biased(quantized)), list(_biased(exact))
    if _weight_shapes(quantized, operators) != _weight_shapes(exact, originals):
        return []
    return list(zip(operators, originals, strict=True))


def _pairs(quantized: Flatbuffer, exact: Flatbuffer) -> Iterator[tuple[_Biased, Array]]:
    """Yield the operators of a quantized file that have integer biases, with the values of these in the float file."""
    for biased, original in _matched(quantized, exact):
        values = exact.constant(original.bias)
        integers = quantized.quantized_constant(biased.bias), quantized.quantized_constant(biased.weights)
        if values is not None and None not in integers:
            yield biased, values.astype(np.float64)


def _weight_shapes(graph: Flatbuffer, operators: Sequence[_Biased]) -> list[tuple[int, ...]]:
    return [graph.shape(biased.weights) for biased in operators]


def _saturated(graph: Flatbuffer, biased: _Biased) -> bool:
    constant = graph.quantized_constant(biased.bias)
    return constant is not None and bool(np.abs(constant.values).max(initial=0) >= _INT32_MAX)


def _input_scale(graph: Flatbuffer, biased: _Biased) -> float:
    scale = graph.scale(biased.source)
    assert scale is not None  # a bias is an integer where the input is
    return scale


def _constant(graph: Flatbuffer, tensor: int) -> QuantizedConstant:
    constant = graph.quantized_constant(tensor)
    assert constant is not None  # _pairs has checked it
    return constant


def _raise_scales(graph: Flatbuffer, weights: int, required: Array) -> bool:
    """Quantize weights again where a scale is below the required one, and return whether there was any."""
    constant = _constant(graph, weights)
    least = required if constant.scales.size == required.size else required.max(keepdims=True)
    scales = np.maximum(constant.scales, least)
    if not (scales > constant.scales).any():
        return False
    shape = [1] * constant.values.ndim
    shape[constant.axis if scales.size > 1 else 0] = scales.size
    values = np.rint(constant.values * (constant.scales / scales).reshape(shape))
    graph.set_quantized_constant(weights, constant._replace(values=values, scales=scales))
    return True


def _set_bias(graph: Flatbuffer, biased: _Biased, values: Array) -> None:
    """Write the bias of an operator for the present scale of its weights."""
    number = graph.own_constant([biased.operator], BIASED_KERNELS[graph.kernel(biased.operator)][2])
    scales = _input_scale(graph, biased) * _constant(graph, biased.weights).scales
    graph.set_quantized_constant(number, QuantizedConstant(np.rint(values / scales), scales, 0))
