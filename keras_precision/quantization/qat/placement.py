"""Where a model is quantized: read from the float file, whose operators are those that integers replace."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.system.files import write_whole
from keras_precision.quantization.float_model import FloatFile
from keras_precision.quantization.format_assignment import assigned
from keras_precision.quantization.layer_trace import layers_of
from keras_precision.quantization.qat.layers.consumers import Graph
from keras_precision.quantization.range_estimators import FIXED
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.runtimes.tflite.file import inspect
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["FIXED", "KEPT", "ROUNDED", "Placement", "placements"]

_MOVES = """
RESHAPE TRANSPOSE MAX_POOL_2D PAD SLICE STRIDED_SLICE SPLIT UNPACK SPACE_TO_DEPTH DEPTH_TO_SPACE RESIZE_NEAREST_NEIGHBOR
GATHER GATHER_ND BROADCAST_TO REDUCE_MIN MIRROR_PAD SQUEEZE EXPAND_DIMS TILE
"""
KEPT = frozenset(_MOVES.split())
"""Kernels that put out values of their input, on its grid (TensorFlow Lite's quantization specification)."""

ROUNDED = frozenset({"AVERAGE_POOL_2D", "RESIZE_BILINEAR"})
"""Kernels that compute new values, and round them to the grid of their input."""

_INTEGER = ("int8", "int4")


@dataclass
class Placement:
    """How one layer is quantized.

    Attributes:
        precision: ``"int8"``, ``"int4"`` or ``"float32"``.
        output: Whether its output is an activation of the file.
        folded: Whether the kernel of the layer before computes it.
        rounds: Whether it computes new values on its input's grid.
        input: The tensor of the file that the model is given, and this layer reads; None for others.
        tensors: The activations of the file, with a range of their own, that it computes, in order.
    """

    precision: str
    output: bool = False
    folded: bool = False
    rounds: bool = False
    input: str | None = None
    tensors: list[str] = field(default_factory=list)


def placements(model: Any, source: FloatFile, plan: PrecisionPlan) -> dict[str, Placement]:
    """Return how each layer is quantized.

    Args:
        model: A functional or sequential model of Keras 3, in float.
        source: Its float file.
        plan: A deployment plan of int8, int4 and float32.

    Returns:
        Layer path to placement, of the layers that compute something in the file.

    Raises:
        PlanError: The plan wants two formats for layers that are one operator.
    """
    plain, graph = _inspected(source.content), Flatbuffer(source.content)
    owners = layers_of(plain, source.trace)
    formats = assigned(plain.operators, owners, plan)
    order = {path: number for number, path in enumerate(source.trace.paths)}
    owners = [tuple(sorted(paths, key=order.__getitem__)) for paths in owners]  # from the first layer to the last
    owner = [paths[-1] if paths else None for paths in owners]
    last = {path: number for number, path in enumerate(owner)}
    layers = layer_paths(model)
    keras_graph = Graph(adapter_of(model), model)
    busy = {path for paths in owners for path in paths}
    found: dict[str, Placement] = {}

    def place(path: str) -> Placement:
        return found.setdefault(path, Placement(plan.precision_of(path)))

    for number, (operator, path) in enumerate(zip(graph.operators, owner, strict=True)):
        if path is None:
            continue
        if formats[number] in _INTEGER:
            first_path = owners[number][0]
            first = place(first_path)
            first.input = first.input or _given(operator, graph)
            for each in owners[number]:
                place(each).precision = formats[number]
                place(each).folded = place(each).folded or each != first_path
        if not _is_quantized(number, plain, formats):
            continue
        end = path if last[path] != number else _end(path, layers, keras_graph, busy)
        _note(place(end), operator, graph, is_last=last[path] == number, folded=end != owners[number][0])
    return found


def _note(place: Placement, operator: Any, graph: Flatbuffer, *, is_last: bool, folded: bool) -> None:
    kernel = graph.kernel(operator)
    place.output = place.output or is_last
    place.folded = place.folded or folded
    place.rounds = place.rounds or kernel in ROUNDED
    if kernel not in KEPT and kernel not in ROUNDED and kernel not in FIXED:
        place.tensors += [graph.name(int(each)) for each in operator.outputs if int(each) >= 0]


def _given(operator: Any, graph: Flatbuffer) -> str | None:
    """The input of the model that an operator reads, if it does."""
    return next((graph.name(int(each)) for each in operator.inputs if int(each) in graph.inputs), None)


def _is_quantized(number: int, plain: EdgeModel, formats: Sequence[str]) -> bool:
    """Whether what an operator writes is quantized: by itself, or for one that reads it."""
    if formats[number] in _INTEGER:
        return True
    return any(
        number in other.reads and wanted in _INTEGER for other, wanted in zip(plain.operators, formats, strict=True)
    )


def _end(path: str, layers: Mapping[str, Any], graph: Any, busy: set[str]) -> str:
    """The last of the layers that are one operator: those behind it that the file has no trace of."""
    paths = {id(layer): each for each, layer in layers.items()}
    layer = layers[path]
    while (following := graph.fused_next(layer)) is not None and paths.get(id(following), path) not in busy:
        layer = following
    return paths[id(layer)]


def _inspected(content: bytes) -> EdgeModel:
    with tempfile.TemporaryDirectory() as folder:
        return inspect(write_whole(Path(folder) / "model.tflite", content))
