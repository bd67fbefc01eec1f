"""The latency of every operator of a ``.tflite`` file, which is cut into files of one operator."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_precision.core.errors import FileFormatError
from keras_precision.core.result import Measurement
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.optional import require
from keras_precision.core.system.timing import spread, time_calls
from keras_precision.runtimes.tflite.file import inspect, interpreter

__all__ = ["OPERATOR_SOURCE", "operator_times"]

OPERATOR_SOURCE = (
    "every operator alone in a file of its own, on random input, since no interpreter reports times by operator"
)
_LEAST_SECONDS = 0.02


def operator_times(
    path: str | os.PathLike[str], *, threads: int, warmup: int, min_calls: int, min_seconds: float
) -> Iterator[Measurement]:
    """Yield ``operator_ms`` of ``0:CONV_2D`` and so on, in the order in which they run; None for one that cannot run alone.

    ``min_seconds`` is for all operators together, the other numbers for one.
    """
    operators = inspect(path).operators
    seconds = max(_LEAST_SECONDS if min_seconds else 0.0, min_seconds / max(1, len(operators)))
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(_cut_operators(Path(path).read_bytes())):
            file = Path(folder) / f"{number}.tflite"
            file.write_bytes(content)
            median = None
            try:
                inspect(file)
            except FileFormatError:  # one that the runtime cannot run without others
                pass
            else:
                median = _median(_with_random_inputs(file, threads), warmup, min_calls, seconds)
            yield Measurement(f"{number}:{operators[number].kernel}", "operator_ms", median)
            file.unlink()


def _median(opened: Any, warmup: int, min_calls: int, seconds: float) -> float:
    times = time_calls(lambda _: opened.invoke(), warmup=warmup, min_calls=min_calls, min_seconds=seconds)
    return spread(times).median


def _with_random_inputs(file: Path, threads: int) -> Any:
    """An interpreter with random inputs, or zeros if they may be indices."""
    random = np.random.default_rng(0)
    with capture_output("interpreter"):
        opened = interpreter(file, threads=threads)
    for detail in opened.get_input_details():
        dtype, shape = np.dtype(detail["dtype"]), tuple(detail["shape"])
        if dtype.kind == "f":
            values = random.standard_normal(shape).astype(dtype)
        elif dtype.itemsize < 4 and dtype.kind in "iu":
            limits = np.iinfo(dtype)
            values = random.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        else:
            values = np.zeros(shape, dtype)
        opened.set_tensor(detail["index"], values)
    return opened


def _cut_operators(content: bytes) -> Iterator[bytes]:
    """Yield a file per operator of the main graph; its inputs are what the operator reads, without constants and state.

    The interpreters have no profiler for Python, and delegates replace groups of operators. A file with one operator is
    run by the same kernel, of the same delegate, on tensors of the same shapes and dtypes.
    """
    tools: Any = require("ai_edge_litert.tools.flatbuffer_utils", extra="tflite")
    with capture_output("flatbuffers"):
        model: Any = tools.read_model_from_bytearray(bytearray(content))
    model.signatureDefs, model.metadata = [], []
    graph, contents = model.subgraphs[0], [buffer.data for buffer in model.buffers]
    operators, tensors = list(graph.operators), graph.tensors
    used_elsewhere = {tensor.buffer for subgraph in model.subgraphs[1:] for tensor in subgraph.tensors}
    for operator in operators:
        read = [int(number) for number in operator.inputs if number >= 0]
        used = used_elsewhere | {tensors[number].buffer for number in read}
        for number, buffer in enumerate(model.buffers):
            buffer.data = contents[number] if number in used else None
        inputs = [number for number in dict.fromkeys(read) if _is_activation(tensors[number], contents)]
        graph.operators = [operator]
        graph.inputs = np.array(inputs, np.int32)
        graph.outputs = np.array([int(number) for number in operator.outputs if number >= 0], np.int32)
        with capture_output("flatbuffers"):
            cut = bytes(tools.convert_object_to_bytearray(model))
        yield cut


def _is_activation(tensor: Any, buffers: list[Any]) -> bool:
    """Whether a tensor is neither a constant nor a state."""
    data = buffers[tensor.buffer]
    return not tensor.isVariable and (data is None or len(data) == 0)
