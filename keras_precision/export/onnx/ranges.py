"""Which range each tensor of an ONNX graph gets: that of the tensor with the same values in the float file."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.system.optional import require
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.tensor_recorder import Observer
from keras_precision.runtimes.onnx import onnx_types, open_onnx
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["onnx_ranges"]

Array = npt.NDArray[Any]

_CLOSE = 1e-4  # of the largest value: two runtimes add up in another order


def onnx_ranges(model: Any, calibration: Calibration, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return the range of each tensor of a graph that holds what a tensor of the float file holds.

    The two are run on the same random sample. Tensors are told by their values in ascending order,
    since the graph has its own order of axes; names are of no help, since a converter gives what it
    fuses new ones. What only a ReLU or a clip reads gets the range behind that: integers clip as it does.

    Args:
        model: The float graph, as ``onnx`` has it.
        calibration: The calibration, with the float file that the graph was made from.
        ranges: Name of a tensor of the float file to its range.

    Returns:
        Name of a tensor of the graph to its range; tensors without a counterpart are left out.
    """
    sample = _sample(calibration)
    known = list(_held_by_file(calibration, sample, ranges).items())
    found: dict[str, Range] = {}
    for name, values in _held_by_graph(model, sample).items():
        match = next((each for each, other in known if _alike(values, other)), None)
        if match is not None:
            found[name] = ranges[match]
    readers: dict[str, list[Any]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    answered = {each.name for each in model.graph.output}
    for name, nodes in readers.items():
        only = nodes[0] if len(nodes) == 1 and name not in answered else None
        if only is not None and only.op_type in ("Relu", "Clip") and only.input[0] == name and only.output[0] in found:
            found[name] = found[only.output[0]]
    return found


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


def _held_by_file(
    calibration: Calibration, sample: Mapping[str, Array], ranges: Mapping[str, Range]
) -> dict[str, Array]:
    graph = Flatbuffer(calibration.float_file.content)
    read = graph.read()  # what a loop leaves and nobody reads is not kept by the interpreter
    wanted = [number for number in graph.activations() if number in read and graph.name(number) in ranges]
    names = {number: graph.name(number) for number in wanted}
    held: dict[str, Array] = {}

    def look(number: int, values: Array) -> None:
        held[names[number]] = np.sort(values, axis=None)

    for _ in Observer(calibration.float_file.content, list(names), batch=1).run([sample], look):
        pass
    return held


def _held_by_graph(model: Any, sample: Mapping[str, Array]) -> dict[str, Array]:
    """What each float tensor of a graph holds, in ascending order."""
    onnx = require("onnx", extra="onnx")
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    types = onnx_types(model)
    answered = {each.name for each in model.graph.output}
    for name in (name for node in model.graph.node for name in node.output):
        if types.get(name) == "float32" and name not in answered:
            tapped.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    opened = open_onnx(tapped, model.graph.name, optimize=False)
    wanted = [each.name for each in tapped.graph.output]
    held = {each.name: np.sort(sample[each.name], axis=None) for each in model.graph.input}
    held |= {name: np.sort(values, axis=None) for name, values in zip(wanted, opened.run(wanted, sample), strict=True)}
    return {name: values for name, values in held.items() if values.dtype == np.float32}


def _alike(values: Array, others: Array) -> bool:
    if values.size != others.size or values.size == 0:
        return False
    return bool(np.abs(values - others).max() <= _CLOSE * np.abs(others).max() + 1e-12)
