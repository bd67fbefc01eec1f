"""The places where a model is quantized, read from its float file, whose operators become the integer kernels."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.system.files import write_atomic
from keras_precision.quantization.float_model import FloatFile
from keras_precision.quantization.format_assignment import assign_formats
from keras_precision.quantization.layer_trace import layers_of
from keras_precision.quantization.qat.layers.consumers import LayerGraph
from keras_precision.quantization.range_estimators import FIXED_RANGES
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.runtimes.tflite.file import inspect
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["INPUT_SCALE", "SAME_VALUES", "Placement", "placements"]

_NAMES = """
RESHAPE TRANSPOSE MAX_POOL_2D PAD SLICE STRIDED_SLICE SPLIT UNPACK SPACE_TO_DEPTH DEPTH_TO_SPACE RESIZE_NEAREST_NEIGHBOR
GATHER GATHER_ND BROADCAST_TO REDUCE_MIN MIRROR_PAD SQUEEZE EXPAND_DIMS TILE
"""
SAME_VALUES = frozenset(_NAMES.split())
"""Kernels whose output has values and scale of their input:
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec."""

INPUT_SCALE = frozenset({"AVERAGE_POOL_2D", "RESIZE_BILINEAR"})
"""Kernels that compute new values in the scale of their input."""

_INTEGER = ("int8", "int4")


@dataclass
class Placement:
    """The quantization of one layer.

    Attributes:
        precision: ``"int8"``, ``"int4"`` or ``"float32"``.
        output: Whether its output is an activation of the file.
        folded: Whether the kernel of the previous layer computes it.
        rounds: Whether it computes new values in the scale of its input.
        inputs: The input tensors of the model that it reads.
        scaled: Whether an operation that is no layer changes these inputs first.
        tensors: The activations of the file with their own range that it computes, in order.
    """

    precision: str
    output: bool = False
    folded: bool = False
    rounds: bool = False
    inputs: list[str] = field(default_factory=list)
    scaled: bool = False
    tensors: list[str] = field(default_factory=list)


def placements(model: Any, source: FloatFile, plan: PrecisionPlan) -> dict[str, Placement]:
    """Return the placement of every layer, by path, that computes something in the float file of a Keras 3 model.

    The plan is one of int8, int4 and float32; PlanError where it has two formats for layers of one operator.
    """
    plain, graph = _inspected(source.content), Flatbuffer(source.content)
    layers_by_operator = layers_of(plain, source.trace)
    formats = assign_formats(plain.operators, layers_by_operator, plan)
    order = {path: number for number, path in enumerate(source.trace.paths)}
    operator_paths = [tuple(sorted(paths, key=order.__getitem__)) for paths in layers_by_operator]
    last_paths = [paths[-1] if paths else None for paths in operator_paths]
    last_operators = {path: number for number, path in enumerate(last_paths)}
    layers = layer_paths(model)
    paths = {id(layer): path for path, layer in layers.items()}
    keras_graph = LayerGraph(adapter_of(model), model)
    traced = {path for paths in operator_paths for path in paths}
    result: dict[str, Placement] = {}

    def placement(path: str) -> Placement:
        return result.setdefault(path, Placement(plan.precision_of(path)))

    for number, (operator, last_path) in enumerate(zip(graph.operators, last_paths, strict=True)):
        if last_path is None:
            continue
        first_path = operator_paths[number][0]
        if formats[number] in _INTEGER:
            if inputs := list(_model_inputs(operator, graph)):
                reader_path = paths.get(id(keras_graph.input_reader(layers[first_path])))
                reader = placement(reader_path or first_path)
                reader.inputs += [name for name in inputs if name not in reader.inputs]
                reader.scaled = reader.scaled or reader_path is None
            for path in operator_paths[number]:
                placement(path).precision = formats[number]
                placement(path).folded = placement(path).folded or path != first_path
        if not _is_quantized(number, plain, formats):
            continue
        is_last = last_operators[last_path] == number
        end = _fused_end(last_path, layers, keras_graph, traced) if is_last else last_path
        _add_operator(placement(end), operator, graph, is_last=is_last, folded=end != first_path)
    return result


def _add_operator(placement: Placement, operator: Any, graph: Flatbuffer, *, is_last: bool, folded: bool) -> None:
    kernel = graph.kernel(operator)
    placement.output = placement.output or is_last
    placement.folded = placement.folded or folded
    placement.rounds = placement.rounds or kernel in INPUT_SCALE
    if kernel not in SAME_VALUES and kernel not in INPUT_SCALE and kernel not in FIXED_RANGES:
        placement.tensors += [graph.name(int(number)) for number in operator.outputs if int(number) >= 0]


def _model_inputs(operator: Any, graph: Flatbuffer) -> Iterator[str]:
    """Yield the inputs of the model that an operator reads."""
    yield from (graph.name(int(number)) for number in operator.inputs if int(number) in graph.inputs)


def _is_quantized(number: int, plain: EdgeModel, formats: Sequence[str]) -> bool:
    """Return whether the output of an operator is quantized, by itself or for a reader."""
    if formats[number] in _INTEGER:
        return True
    readers = (precision for reader, precision in zip(plain.operators, formats, strict=True) if number in reader.reads)
    return any(precision in _INTEGER for precision in readers)


def _fused_end(path: str, layers: Mapping[str, Any], graph: LayerGraph, traced: set[str]) -> str:
    """Return the last layer of an operator, among followers that have no trace in the file of their own."""
    paths = {id(layer): layer_path for layer_path, layer in layers.items()}
    layer = layers[path]
    while (following := graph.fused_next(layer)) is not None and paths.get(id(following), path) not in traced:
        layer = following
    return paths[id(layer)]


def _inspected(content: bytes) -> EdgeModel:
    with tempfile.TemporaryDirectory() as folder:
        return inspect(write_atomic(Path(folder) / "model.tflite", content))
