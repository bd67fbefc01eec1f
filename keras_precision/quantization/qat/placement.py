"""The places where a model is quantized, read from its float file, whose operators become the integer kernels."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_precision._adapters import adapter_of
from keras_precision._adapters.copy_check import is_foreign
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.system.files import write_atomic
from keras_precision.quantization.float_model import FloatFile
from keras_precision.quantization.format_assignment import assign_formats
from keras_precision.quantization.layer_trace import Trace, layers_of
from keras_precision.quantization.qat.layers.consumers import LayerGraph
from keras_precision.quantization.qat.layers.rule_lookup import known_rule_of
from keras_precision.quantization.range_estimators import FIXED_RANGES
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.runtimes.tflite.file import inspect
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["INPUT_SCALE", "SAME_VALUES", "Placement", "placements", "quantized_activations"]

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
_OUTPUT = "StatefulPartitionedCall"  # what the converter calls outputs of the file


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
        result: Those of its last operator.
        altered: Those with other values than the layer computes, since an operation that is no layer is in the kernel, too, or
            an operation of the layer is not.
    """

    precision: str
    output: bool = False
    folded: bool = False
    rounds: bool = False
    inputs: list[str] = field(default_factory=list)
    scaled: bool = False
    tensors: list[str] = field(default_factory=list)
    result: list[str] = field(default_factory=list)
    altered: set[str] = field(default_factory=set)


def placements(model: Any, source: FloatFile, plan: PrecisionPlan) -> dict[str, Placement]:
    """Return the placement of every layer, by path, that computes something in the float file of a Keras 3 model.

    The plan is one of int8, int4 and float32; PlanError where it has two formats for layers of one operator.
    """
    plain, graph = _inspected(source.content), Flatbuffer(source.content)
    layers_by_operator = layers_of(plain, source.trace)
    formats = assign_formats(plain.operators, layers_by_operator, plan)
    order = {path: number for number, path in enumerate(source.trace.paths)}
    operator_paths = [tuple(sorted(paths, key=order.__getitem__)) for paths in layers_by_operator]
    layers, adapter = layer_paths(model), adapter_of(model)
    last_paths = [_last_path(paths, layers) for paths in operator_paths]
    last_operators = {path: number for number, path in enumerate(last_paths)}
    paths = {id(layer): path for path, layer in layers.items()}
    keras_graph = LayerGraph(adapter, model)
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
        whole = end if known_rule_of(layers[end]) is None and is_foreign(adapter, layers[end]) else None
        own = _own_tensors(operator, graph)
        placement(end).altered |= {name for name in own if _is_altered(name, source.trace, whole)}
    return result


def _last_path(paths: Sequence[str], layers: Mapping[str, Any]) -> str | None:
    """Return the last layer of an operator that computes new values; None where no layer is known."""
    rules = {path: known_rule_of(layers[path]) for path in paths}
    computing = [path for path, rule in rules.items() if rule is None or rule.output_of(layers[path]) != "kept"]
    return next(reversed(computing or list(paths)), None)


def quantized_activations(source: FloatFile, plan: PrecisionPlan) -> list[str]:
    """Return the activations of a float file that a plan quantizes in a range of their own, of whatever computes them."""
    plain, graph = _inspected(source.content), Flatbuffer(source.content)
    formats = assign_formats(plain.operators, layers_of(plain, source.trace), plan)
    names: list[str] = []
    for number, operator in enumerate(graph.operators):
        if formats[number] in _INTEGER:
            names += _model_inputs(operator, graph)
        if _is_quantized(number, plain, formats):
            names += _own_tensors(operator, graph)
    return list(dict.fromkeys(names))


def _add_operator(placement: Placement, operator: Any, graph: Flatbuffer, *, is_last: bool, folded: bool) -> None:
    placement.output = placement.output or is_last
    placement.folded = placement.folded or folded
    placement.rounds = placement.rounds or graph.kernel(operator) in INPUT_SCALE
    tensors = _own_tensors(operator, graph)
    placement.tensors += tensors
    placement.result = tensors if is_last else placement.result


def _is_altered(tensor: str, trace: Trace, path: str | None) -> bool:
    """Return whether a tensor has more than layers compute, or less than all that the layer of a path does."""
    parts = tensor.split(";")
    is_less = path is not None and not tensor.startswith(_OUTPUT) and trace.last_operation(path) not in parts
    return is_less or any(map(trace.is_outside_layers, parts))


def _own_tensors(operator: Any, graph: Flatbuffer) -> list[str]:
    """Return the activations that an operator computes, unless its kernel fixes their range or keeps that of its input."""
    kernel = graph.kernel(operator)
    if kernel in SAME_VALUES or kernel in INPUT_SCALE or kernel in FIXED_RANGES:
        return []
    return [graph.name(int(number)) for number in operator.outputs if graph.is_float(int(number))]


def _model_inputs(operator: Any, graph: Flatbuffer) -> Iterator[str]:
    """Yield the inputs of the model that an operator reads, but for those that must not be rounded."""
    exact, numbers = graph.exact_inputs(), map(int, operator.inputs)
    yield from (
        graph.name(number)
        for number in numbers
        if number in graph.inputs and graph.is_float(number) and number not in exact
    )


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
