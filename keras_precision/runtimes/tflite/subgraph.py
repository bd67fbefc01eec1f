"""One operator of a ``.tflite`` file, cut out as a file of its own, so that it can be run and timed alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_precision.core.system.captured_output import captured
from keras_precision.core.system.optional import require

__all__ = ["cut_operators"]


def cut_operators(content: bytes) -> Iterator[bytes]:
    """Yield a file for each operator of the main graph.

    The interpreters have no profiler that Python could read, and delegates take operators over in
    groups. A file with one operator is run by the same kernel, of the same delegate, on tensors of
    the same shapes and types.
    """
    tools: Any = require("ai_edge_litert.tools.flatbuffer_utils", extra="tflite")
    with captured("flatbuffers"):
        model: Any = tools.read_model_from_bytearray(bytearray(content))
    model.signatureDefs, model.metadata = [], []
    graph, kept = model.subgraphs[0], [buffer.data for buffer in model.buffers]
    operators, tensors = list(graph.operators), graph.tensors
    held_by_others = {tensor.buffer for each in model.subgraphs[1:] for tensor in each.tensors}
    for operator in operators:
        read = [int(number) for number in operator.inputs if number >= 0]
        used = held_by_others | {tensors[number].buffer for number in read}
        for number, buffer in enumerate(model.buffers):
            buffer.data = kept[number] if number in used else None
        graph.operators = [operator]
        graph.inputs = np.array(
            [number for number in dict.fromkeys(read) if _is_given(tensors[number], kept)], np.int32
        )
        graph.outputs = np.array([int(number) for number in operator.outputs if number >= 0], np.int32)
        with captured("flatbuffers"):
            cut = bytes(tools.convert_object_to_bytearray(model))
        yield cut


def _is_given(tensor: Any, buffers: list[Any]) -> bool:
    """Whether a tensor's values come from elsewhere: it is no constant, and no state."""
    data = buffers[tensor.buffer]
    return not tensor.isVariable and (data is None or len(data) == 0)
