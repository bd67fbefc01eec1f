"""Multiply-accumulates of the operators of a file: what bit operations are counted from."""

import math
from collections.abc import Callable
from typing import Any

from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["macs"]


def macs(content: bytes) -> list[int]:
    """Return how many products each operator of a file computes for one sample.

    Args:
        content: A float file for one sample.

    Returns:
        A count for each operator; 0 for those without weights to multiply with.
    """
    graph = Flatbuffer(content)
    return [_counted(graph, operator) for operator in graph.operators]


def _counted(graph: Flatbuffer, operator: Any) -> int:
    count = _PER_OUTPUT.get(graph.kernel(operator))
    if count is None:
        return 0
    written = math.prod(graph.shape(int(operator.outputs[0])))
    return written * count(graph.shape(int(operator.inputs[1])))


# Weights lie as (out, height, width, in); those of a depthwise convolution as (1, height, width, channels).
_PER_OUTPUT: dict[str, Callable[[tuple[int, ...]], int]] = {
    "CONV_2D": lambda weights: math.prod(weights[1:]),
    "DEPTHWISE_CONV_2D": lambda weights: math.prod(weights[1:3]),
    "FULLY_CONNECTED": lambda weights: weights[-1],
    "BATCH_MATMUL": lambda weights: weights[-2] if len(weights) > 1 else 1,
}
