"""Ranges for the tensors of an ONNX graph: those of the tensors with the same values in the float file."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.system.optional import require
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.tensor_recorder import TensorRecorder
from keras_precision.runtimes.onnx import onnx_types, open_onnx
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["onnx_ranges"]

Array = npt.NDArray[Any]

_CLOSE = 1e-4  # of the largest value: two runtimes add up in another order


def onnx_ranges(model: Any, calibration: Calibration, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return the range of every tensor of a graph that has the values of a tensor of the float file.

    Both run on the same random sample. Tensors are matched by their values in ascending order, since the graph has its own
    order of axes, and a converter renames what it fuses. What only a ReLU or a clip reads gets the range behind that:
    integers clip as it does. ``ranges`` are by names of the float file, the result by names of the graph.
    """
    sample = _sample(calibration)
    file_values = list(_file_values(calibration, sample, ranges).items())
    matched: dict[str, Range] = {}
    for name, values in _graph_values(model, sample).items():
        match = next((tensor for tensor, others in file_values if _alike(values, others)), None)
        if match is not None:
            matched[name] = ranges[match]
    readers: dict[str, list[Any]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    outputs = {output.name for output in model.graph.output}
    for name, nodes in readers.items():
        only = nodes[0] if len(nodes) == 1 and name not in outputs else None
        if (
            only is not None
            and only.op_type in ("Relu", "Clip")
            and only.input[0] == name
            and only.output[0] in matched
        ):
            matched[name] = matched[only.output[0]]
    return matched


def _sample(calibration: Calibration) -> dict[str, Array]:
    """One random sample, of the values that the inputs took."""
    random = np.random.default_rng(0)
    seen = calibration.inputs()
    graph = Flatbuffer(calibration.float_file.content)
    sample: dict[str, Array] = {}
    for name, number in graph.named_inputs().items():
        shape, dtype = graph.shape(number), graph.dtype(number)
        if name in seen:
            low, high = seen[name].values.minimum, seen[name].values.maximum
            sample[name] = random.uniform(low, max(high, low + 1e-3), shape).astype(dtype)
        else:
            sample[name] = random.integers(0, 2, shape).astype(dtype)
    return sample


def _file_values(
    calibration: Calibration, sample: Mapping[str, Array], ranges: Mapping[str, Range]
) -> dict[str, Array]:
    graph = Flatbuffer(calibration.float_file.content)
    read = graph.read()  # the interpreter discards what a loop writes and nobody reads
    numbers = [number for number in graph.activations() if number in read and graph.name(number) in ranges]
    names = {number: graph.name(number) for number in numbers}
    sorted_values: dict[str, Array] = {}

    def look(number: int, values: Array) -> None:
        sorted_values[names[number]] = np.sort(values, axis=None)

    for _ in TensorRecorder(calibration.float_file.content, list(names), batch=1).run([sample], look):
        pass
    return sorted_values


def _graph_values(model: Any, sample: Mapping[str, Array]) -> dict[str, Array]:
    """The values of every float tensor of a graph, in ascending order."""
    onnx = require("onnx", extra="onnx")
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    types = onnx_types(model)
    outputs = {output.name for output in model.graph.output}
    for name in (name for node in model.graph.node for name in node.output):
        if types.get(name) == "float32" and name not in outputs:
            tapped.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    opened = open_onnx(tapped, model.graph.name, optimize=False)
    names = [output.name for output in tapped.graph.output]
    sorted_values = {tensor.name: np.sort(sample[tensor.name], axis=None) for tensor in model.graph.input}
    values_of = zip(names, opened.run(names, sample), strict=True)
    sorted_values |= {name: np.sort(values, axis=None) for name, values in values_of}
    return {name: values for name, values in sorted_values.items() if values.dtype == np.float32}


def _alike(values: Array, others: Array) -> bool:
    if values.size != others.size or values.size == 0:
        return False
    return bool(np.abs(values - others).max() <= _CLOSE * np.abs(others).max() + 1e-12)
