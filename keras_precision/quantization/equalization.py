"""Cross-layer equalization: weights on both sides of a channel scaled to equal magnitude, for the same outputs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import InputError
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["EqualizedFile", "LayerPair", "check_equalization", "equalize_layers", "layer_pairs"]

Array = npt.NDArray[Any]

_SWEEPS = 20
_MAX_EXPONENT = 8  # of the total scale of a channel, so that one with almost no weights is not blown up

_OUTPUT_AXES = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": -1}
"""Kernel to the axis of the output channels in its weights; the input channels are along the last axis."""

_HOMOGENEOUS = ("NONE", "RELU")
"""Activations with f(s x) = s f(x) for every s > 0, which RELU6 is not."""

_CHANNELWISE = ("MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "PAD", "RELU", "RESHAPE")
"""Kernels that are homogeneous and do not mix channels while the last axis stays the same."""


class EqualizedFile(NamedTuple):
    """A float file, and the number of layer pairs between which its channels were scaled."""

    content: bytes
    pairs: int


@dataclass(frozen=True)
class LayerPair:
    """A producer and the only consumer of its output, by the numbers of their constants.

    Attributes:
        channels: The number of channels between them.
        weights: The weights of the producer.
        axis: The axis of the channels in these weights.
        bias: The bias of the producer; -1 where it is absent or all zeros, a constant that operators often share.
        readers: The weights of the consumer, whose last axis has every channel once or, in a
            depthwise convolution, as often as its multiplier says.
    """

    channels: int
    weights: int
    axis: int
    bias: int
    readers: int

    @property
    def constants(self) -> tuple[int, ...]:
        """The numbers of all constants of the pair."""
        return tuple(number for number in (self.weights, self.bias, self.readers) if number >= 0)


def check_equalization(value: object) -> None:
    """Raise InputError unless the value of ``cross_layer_equalization`` is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"Expected cross_layer_equalization to be True or False. Received: {value!r}.")


def equalize_layers(content: bytes) -> EqualizedFile:
    """Return a float file with the same outputs, and weights of more even magnitude.

    Between two layers of weights W1 and W2, with f(s x) = s f(x) for s > 0 in between, channel i
    of the first and of its bias is divided by s_i, and its weights in the second multiplied:
    ``W2 f(W1 x + b1) = W2 S f(S^-1 W1 x + S^-1 b1)``. With r1_i and r2_i the largest magnitudes of the
    channel's weights, ``s_i = r1_i / sqrt(r1_i r2_i)`` makes them equal (M. Nagel and others, Data-Free
    Quantization through Weight Equalization and Bias Correction, 2019, equation 11). Pairs share
    layers, so the sweeps over all pairs repeat until nothing changes.

    Every s_i is rounded to a power of two, which is exact in float32 unless a number leaves its range. A
    channel without weights on one side stays as it is, and none is scaled by more than 2^8.
    """
    graph = Flatbuffer(content)
    pairs = layer_pairs(graph)
    constants = {number: _constant(graph, number) for pair in pairs for number in pair.constants}
    totals = {pair: np.zeros(pair.channels, int) for pair in pairs}
    for _ in range(_SWEEPS):
        changed = [_scale(constants, pair, totals[pair]) for pair in pairs]
        if not any(changed):
            break
    scaled = [pair for pair, total in totals.items() if total.any()]
    for number in dict.fromkeys(number for pair in scaled for number in pair.constants):
        graph.set_constant(number, constants[number])
    return EqualizedFile(graph.content() if scaled else content, len(scaled))


def layer_pairs(graph: Flatbuffer) -> list[LayerPair]:
    """Return the pairs of a float file between which channels can be scaled, in the order of their producers.

    Producers are convolutions, depthwise convolutions and dense layers with no activation or a plain ReLU;
    pooling, zero padding and other channelwise operators may lie in between. A pair is left out where another
    operator reads a tensor between them, where such a tensor is an output of the file, where a flattened
    image mixes the channels, and where other operators share their constants.
    """
    return [pair for operator in graph.operators if (pair := _pair(graph, operator)) is not None]


def _pair(graph: Flatbuffer, operator: Any) -> LayerPair | None:
    kernel = graph.kernel(operator)
    if kernel not in _OUTPUT_AXES or graph.fused(operator) not in _HOMOGENEOUS:
        return None
    tensor = int(operator.outputs[0])
    channels = graph.shape(tensor)[-1]
    consumer = _consumer(graph, tensor)
    if consumer is None:
        return None
    _, weights, bias = (*map(int, operator.inputs), -1)[:3]
    offsets, readers = graph.constant(bias), int(consumer.inputs[1])
    if offsets is not None and not offsets.any():
        bias = -1
    pair = LayerPair(channels, weights, _OUTPUT_AXES[kernel], bias, readers)
    return pair if _fits(graph, pair, depthwise=graph.kernel(consumer) == "DEPTHWISE_CONV_2D") else None


def _consumer(graph: Flatbuffer, tensor: int) -> Any | None:
    """Return the operator with weights that alone reads a tensor, directly or through channelwise operators."""
    channels = graph.shape(tensor)[-1]
    while tensor not in graph.outputs:
        readers = [operator for operator in graph.operators for number in operator.inputs if int(number) == tensor]
        if len(readers) != 1 or int(readers[0].inputs[0]) != tensor:
            return None
        if graph.kernel(readers[0]) in _OUTPUT_AXES:
            return readers[0]
        tensor = int(readers[0].outputs[0])
        if not _is_channelwise(graph, readers[0]) or graph.shape(tensor)[-1:] != (channels,):
            return None
    return None


def _is_channelwise(graph: Flatbuffer, operator: Any) -> bool:
    """Return whether scaling an input channel of an operator scales the same output channel alone."""
    kernel = graph.kernel(operator)
    if kernel not in _CHANNELWISE or graph.fused(operator) not in _HOMOGENEOUS:
        return False
    if kernel != "MEAN":
        return True
    axes, rank = graph.integers(int(operator.inputs[1])), graph.rank(int(operator.inputs[0]))
    return axes is not None and rank - 1 not in [axis % rank for axis in axes]


def _fits(graph: Flatbuffer, pair: LayerPair, *, depthwise: bool) -> bool:
    """Return whether the constants have these channels, and no other operator reads them."""
    weights, readers = graph.constant(pair.weights), graph.constant(pair.readers)
    if weights is None or readers is None or (pair.bias >= 0 and graph.constant(pair.bias) is None):
        return False
    uses = Counter(_reads(graph))
    if any(uses[number] > 1 for number in (pair.weights, pair.bias, pair.readers)):
        return False
    times, rest = divmod(readers.shape[-1], pair.channels)
    whole = rest == 0 and (depthwise or times == 1)
    return whole and bool(weights.shape[pair.axis] == pair.channels)


def _reads(graph: Flatbuffer) -> Iterator[int]:
    for operator in graph.operators:
        yield from (int(number) for number in operator.inputs if int(number) >= 0)


def _constant(graph: Flatbuffer, tensor: int) -> Array:
    values = graph.constant(tensor)
    assert values is not None  # _fits has checked it
    return values


def _scale(constants: dict[int, Array], pair: LayerPair, total: Array) -> bool:
    """Scale the channels of a pair, add the exponents to ``total``, and return whether any channel changed."""
    first = _magnitudes(constants[pair.weights], pair.axis, pair.channels)
    target = total + _exponents(first, _magnitudes(constants[pair.readers], -1, pair.channels))
    exponents = np.clip(target, -_MAX_EXPONENT, _MAX_EXPONENT) - total
    total += exponents
    if not exponents.any():
        return False
    constants[pair.weights] = _multiplied(constants[pair.weights], -exponents, pair.axis)
    if pair.bias >= 0:
        constants[pair.bias] = _multiplied(constants[pair.bias], -exponents, -1)
    constants[pair.readers] = _multiplied(constants[pair.readers], exponents, -1)
    return True


def _exponents(first: Array, second: Array) -> Array:
    """Return log2 s_i = (log2 r1_i - log2 r2_i) / 2 as integers; 0 for a dead channel."""
    alive = (first > 0) & (second > 0)
    ratio = np.divide(first, second, out=np.ones_like(first), where=alive)
    return np.rint(np.log2(ratio) / 2).astype(int)


def _magnitudes(weights: Array, axis: int, channels: int) -> Array:
    """Return the largest magnitude of every channel."""
    table = np.moveaxis(np.abs(weights), axis, -1).reshape(-1, channels, weights.shape[axis] // channels)
    return np.asarray(table.max(axis=(0, 2)), np.float64)


def _multiplied(values: Array, exponents: Array, axis: int) -> Array:
    """Return values multiplied by two to the exponent of their channel."""
    shape = [1] * values.ndim
    shape[axis] = values.shape[axis]
    repeated = np.repeat(exponents, values.shape[axis] // len(exponents))
    return np.asarray(np.ldexp(values, repeated.reshape(shape)), np.float32)
