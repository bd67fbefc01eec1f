"""What the weights of an operator are multiplied with on samples: rows of inputs, in the order of its weights."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_precision.quantization.tensor_recorder import TensorRecorder
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = [
    "BIAS",
    "WeightedOperator",
    "grouped_weights",
    "input_rows",
    "ungrouped_weights",
    "weighted_operators",
]

Array = npt.NDArray[Any]

_WEIGHTED_KERNELS = ("CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D")
BIAS = 2
"""The position of the bias among the operands of these kernels."""

_POSITIONS = (8, 160)  # of an image, evenly spaced: at least, at most
_NUMBERS = 2**24  # of the rows of an operator
_PART = 2**26  # of the rows of all operators that are recorded together


class WeightedOperator(NamedTuple):
    """An operator with constant weights.

    Attributes:
        number: Its place among the operators of the file.
        kernel: Its kernel, one that multiplies its input by weights.
        source: The tensor that its weights are multiplied with.
        weights: The tensor of its weights.
        shape: The shape of its weights.
        options: The options of the kernel.
    """

    number: int
    kernel: str
    source: int
    weights: int
    shape: tuple[int, ...]
    options: Any

    @property
    def inputs(self) -> int:
        """The number of inputs of an output."""
        return math.prod(self.shape[1:3] if self.kernel == "DEPTHWISE_CONV_2D" else self.shape[1:])


def weighted_operators(graph: Flatbuffer) -> list[list[WeightedOperator]]:
    """Return the operators of a float file that have constant weights, those with the same weights together."""
    groups: dict[int, list[WeightedOperator]] = {}
    for number, operator in enumerate(graph.operators):
        kernel = graph.kernel(operator)
        if kernel not in _WEIGHTED_KERNELS or graph.constant(int(operator.inputs[1])) is None:
            continue
        source, weights = map(int, operator.inputs[:2])
        described = WeightedOperator(number, kernel, source, weights, graph.shape(weights), operator.builtinOptions)
        groups.setdefault(weights, []).append(described)
    return list(groups.values())


def input_rows(
    graph: Flatbuffer, operators: Sequence[WeightedOperator], samples: Mapping[str, Array]
) -> Iterator[Array]:
    """Yield the rows that the weights of each operator are multiplied with, of shape (groups, rows, inputs).

    A convolution has a row for each of some positions of an image, and a group for each group of its channels.
    """
    count = len(next(iter(samples.values())))
    for part in _parts(graph, operators, count):
        collected: list[list[Array]] = [[] for _ in part]

        def record(tensor: int, values: Array, part: Any = part, collected: Any = collected) -> None:
            for operator, rows in zip(part, collected, strict=True):
                if operator.source == tensor:
                    rows.append(_rows(operator, values, _positions(operator, count)))

        sources = list(dict.fromkeys(operator.source for operator in part))
        for _ in TensorRecorder(graph.content(), sources).run([samples], record):
            pass
        for rows in collected:
            yield np.concatenate(rows, axis=1)
            rows.clear()


def grouped_weights(kernel: str, weights: Array, groups: int) -> Array:
    """Return the weights of an operator in the order of its inputs, of shape (groups, outputs, inputs)."""
    if kernel == "DEPTHWISE_CONV_2D":
        _, height, width, outputs = weights.shape
        return weights.reshape(height * width, groups, outputs // groups).transpose(1, 2, 0)
    return weights.reshape(groups, len(weights) // groups, -1)


def ungrouped_weights(kernel: str, values: Array, shape: tuple[int, ...]) -> Array:
    """Return what ``grouped_weights`` returned, or integers in the place of it, in the shape of the weights."""
    if kernel == "DEPTHWISE_CONV_2D":
        return np.asarray(values.transpose(2, 0, 1).reshape(shape))
    return np.asarray(values.reshape(shape))


def _positions(operator: WeightedOperator, count: int) -> int:
    """The positions of an image whose rows are taken."""
    least, most = _POSITIONS
    return max(least, min(most, _NUMBERS // (count * operator.inputs)))


def _parts(graph: Flatbuffer, operators: Sequence[WeightedOperator], count: int) -> Iterator[list[WeightedOperator]]:
    """Yield successive operators whose rows fit into memory together."""
    part: list[WeightedOperator] = []
    taken = 0
    for operator in operators:
        groups = graph.shape(operator.source)[-1] if operator.kernel == "DEPTHWISE_CONV_2D" else 1
        numbers = groups * count * _positions(operator, count) * operator.inputs
        if part and taken + numbers > _PART:
            yield part
            part, taken = [], 0
        part.append(operator)
        taken += numbers
    if part:
        yield part


def _rows(operator: WeightedOperator, values: Array, positions: int) -> Array:
    """Return the rows of an operator for the values of its source."""
    kernel, shape, options = operator.kernel, operator.shape, operator.options
    if kernel == "FULLY_CONNECTED":
        return values.reshape(1, -1, shape[-1]).copy()  # the interpreter's memory
    size = shape[1:3]
    dilations, strides = (options.dilationHFactor, options.dilationWFactor), (options.strideH, options.strideW)
    padded = _padded(values, size, strides, dilations) if options.padding == 0 else values  # SAME is 0
    patches = _windows(padded, size, dilations)[:, :: strides[0], :: strides[1]]
    flat = _some(patches, positions)
    groups = flat.shape[1] if kernel == "DEPTHWISE_CONV_2D" else flat.shape[1] // shape[3]
    taps = np.moveaxis(flat.reshape(len(flat), groups, -1, size[0] * size[1]), 0, 1)
    return np.swapaxes(taps, 2, 3).reshape(groups, len(flat), -1)


def _windows(values: Array, size: tuple[int, ...], dilations: tuple[int, int]) -> Array:
    """Return the windows of images, of shape (n, rows, columns, channels, *size)."""
    spans = tuple((length - 1) * dilation + 1 for length, dilation in zip(size, dilations, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(values, spans, axis=(1, 2))
    return np.asarray(windows[..., :: dilations[0], :: dilations[1]])


def _padded(values: Array, size: tuple[int, ...], strides: tuple[int, int], dilations: tuple[int, int]) -> Array:
    """Return images with the zeros that the padding SAME puts around them."""
    padding = [(0, 0)] * 4
    for axis in (0, 1):
        length, span = values.shape[axis + 1], (size[axis] - 1) * dilations[axis] + 1
        total = max((-(-length // strides[axis]) - 1) * strides[axis] + span - length, 0)
        padding[axis + 1] = (total // 2, total - total // 2)
    return np.pad(values, padding)


def _some(patches: Array, positions: int) -> Array:
    """Return the windows at some positions of each image, of shape (windows, channels, *size)."""
    rows, columns = patches.shape[1:3]
    chosen = np.linspace(0, rows * columns - 1, min(positions, rows * columns)).astype(int)
    return np.asarray(patches[:, chosen // columns, chosen % columns].reshape(-1, *patches.shape[3:]))
