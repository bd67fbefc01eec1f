"""Pairs of operators between which a channel may be scaled without any change of what the file computes."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["LayerPair", "layer_pairs"]

_OUTPUT_AXES = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": -1}
"""Kernel to the axis of its weights along which the channels lie that it writes; those that it reads lie along the last."""

_HOMOGENEOUS = ("NONE", "RELU")
"""Activations with f(s x) = s f(x) for every s > 0. RELU6 is none."""

_KEEPING = ("MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "PAD", "RELU", "RESHAPE")
"""Kernels that are as homogeneous, and keep each channel apart as long as the last axis stays as it is."""


@dataclass(frozen=True)
class LayerPair:
    """A producer and the only consumer of what it writes, by the numbers of their constants.

    Attributes:
        channels: How many channels pass from one to the other.
        weights: The weights of the producer.
        axis: The axis of these along which the channels lie.
        bias: Its bias; -1 where it has none but zeros, which operators often share.
        readers: The weights of the consumer, whose last axis holds the channels, each once or, in a
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


def layer_pairs(graph: Flatbuffer) -> list[LayerPair]:
    """Return the pairs of a float file.

    Convolutions, depthwise convolutions and dense layers count, the first with no activation or a
    plain ReLU; between them pooling, zero padding and the like may lie. Left out is a pair where
    anything else reads what lies between them, where it is an answer of the file, where a flattened
    image mixes the channels, and where constants are shared with other operators.

    Args:
        graph: The file.

    Returns:
        The pairs, in the order in which their producers run.
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
    """The operator with weights that alone reads a tensor, or what keeps the tensor's channels."""
    channels = graph.shape(tensor)[-1]
    while tensor not in graph.outputs:
        readers = [each for each in graph.operators for number in each.inputs if int(number) == tensor]
        if len(readers) != 1 or int(readers[0].inputs[0]) != tensor:
            return None
        if graph.kernel(readers[0]) in _OUTPUT_AXES:
            return readers[0]
        tensor = int(readers[0].outputs[0])
        if not _keeps(graph, readers[0]) or graph.shape(tensor)[-1:] != (channels,):
            return None
    return None


def _keeps(graph: Flatbuffer, operator: Any) -> bool:
    """Whether an operator scales what it writes as what it reads is scaled, each channel by itself."""
    kernel = graph.kernel(operator)
    if kernel not in _KEEPING or graph.fused(operator) not in _HOMOGENEOUS:
        return False
    if kernel != "MEAN":
        return True
    axes, rank = graph.integers(int(operator.inputs[1])), graph.rank(int(operator.inputs[0]))
    return axes is not None and rank - 1 not in [axis % rank for axis in axes]


def _fits(graph: Flatbuffer, pair: LayerPair, *, depthwise: bool) -> bool:
    """Whether the constants hold these channels, and no other operator reads them."""
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
        yield from (number for each in operator.inputs if (number := int(each)) >= 0)
