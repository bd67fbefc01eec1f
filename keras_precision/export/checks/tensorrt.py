"""check_tensorrt: an ``.onnx`` file checked against TensorRT's rules for explicit quantization."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_precision.core.environment import Environment
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.optional import require
from keras_precision.runtimes.onnx import onnx_types, read_onnx
from keras_precision.runtimes.onnx_operators import CASTS, PRODUCTS, node_name

__all__ = ["check_tensorrt"]

_BIAS = 2  # the operand of a product that is its bias
_CHANNELS = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gemm": 1}
"""The axis of a product's weights along which its output channels lie; a Gemm may transpose them."""


@dataclass(frozen=True)
class _Graph:
    """A graph as the rules read it."""

    nodes: list[Any]
    constants: dict[str, Any]
    writers: dict[str, Any]
    types: dict[str, str]
    inputs: list[Any]
    outputs: frozenset[str]

    def called(self, kind: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        """Yield name and node of all nodes of some kinds."""
        for number, node in enumerate(self.nodes):
            if node.op_type in kind:
                yield node_name(node, number), node

    def cast(self, tensor: str) -> Any:
        """The DequantizeLinear that writes a tensor; None where none does."""
        node = self.writers.get(tensor)
        return node if node is not None and node.op_type == "DequantizeLinear" else None


def check_tensorrt(path: str | os.PathLike[str]) -> Result:
    """Check an ``.onnx`` file against TensorRT's rules for explicit quantization.

    TensorRT itself is not run: ``trtexec`` on a machine that has it reports whether it takes the file,
    and how fast it is. The rules are those of NVIDIA's TensorRT documentation, "Working with
    Quantized Types": explicit quantization.

    Args:
        path: An ``.onnx`` file.

    Returns:
        A result with ``rules_broken``, and a row ``rule`` for every rule: ``"obeyed"``, ``"does not
        apply"``, or what breaks it.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is no ONNX file.
        MissingExtraError: ``onnx`` is not installed.

    Example:
        >>> import keras_precision as kp
        >>> written = kp.export_onnx(model, "model.onnx", "int8", x_cal, target="tensorrt")
        >>> check_tensorrt("model.onnx").value("rules_broken")
        0
    """
    model = read_onnx(path)
    graph = _read(model)
    subject = Path(path).name
    casts = any(True for _ in graph.called(CASTS))
    rows = []
    for rule, look in _RULES.items():
        broken = list(look(graph)) if casts or look is _static else []
        text = f"broken by {'; '.join(broken[:3])}{f'; and {len(broken) - 3} more' if len(broken) > 3 else ''}"
        rows.append(
            Measurement(rule, "rule", text if broken else "obeyed" if casts or look is _static else "does not apply")
        )
    count = sum(str(row.value).startswith("broken") for row in rows)
    notes = ["TensorRT itself was not run: these are its documented rules, checked on the file."]
    if not casts:
        notes.append("The file has no QuantizeLinear: TensorRT would compute it in its float types.")
    return Result(
        f"tensorrt:{subject}",
        (Measurement(subject, "rules_broken", count), *rows),
        Environment.here(),
        notes=tuple(notes),
    )


def _read(model: Any) -> _Graph:
    arrays = require("onnx.numpy_helper", extra="onnx")
    nodes = list(model.graph.node)
    return _Graph(
        nodes=nodes,
        constants={tensor.name: arrays.to_array(tensor) for tensor in model.graph.initializer},
        writers={name: node for node in nodes for name in node.output},
        types=onnx_types(model),
        inputs=list(model.graph.input),
        outputs=frozenset(output.name for output in model.graph.output),
    )


def _symmetric(graph: _Graph) -> Iterator[str]:
    for name, node in graph.called(CASTS):
        zero = graph.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if zero is not None and np.any(zero):
            yield f"{name} (zero point {int(np.ravel(zero)[np.flatnonzero(zero)[0]])})"


def _signed(graph: _Graph) -> Iterator[str]:
    for name, node in graph.called(CASTS):
        quantized = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        if (kind := graph.types.get(quantized, "uint8")) != "int8":
            yield f"{name} ({kind})"


def _constant_scales(graph: _Graph) -> Iterator[str]:
    for name, node in graph.called(CASTS):
        scale = graph.constants.get(node.input[1])
        if scale is None or not np.all(np.isfinite(scale)) or not np.all(scale > 0):
            yield f"{name} ({'a scale that is computed' if scale is None else 'a scale that is not positive'})"


def _one_scale_for_activations(graph: _Graph) -> Iterator[str]:
    for name, node in graph.called(("QuantizeLinear",)):
        scale = graph.constants.get(node.input[1])
        if node.input[0] not in graph.constants and scale is not None and np.size(scale) > 1:
            yield f"{name} ({np.size(scale)} scales)"


def _weights_by_output_channel(graph: _Graph) -> Iterator[str]:
    for name, node in graph.called(PRODUCTS):
        cast = graph.cast(node.input[1])
        scale = graph.constants.get(cast.input[1]) if cast is not None else None
        if scale is None or np.size(scale) == 1:
            continue
        axis, rank = _attribute(cast, "axis", 1), max(1, np.ndim(_weights(graph, cast)))
        expected = _CHANNELS[node.op_type] - _attribute(node, "transB", 0)
        if axis % rank != expected % rank:
            yield f"{name} (scales along axis {axis})"


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def _weights(graph: _Graph, cast: Any) -> Any:
    """The constant behind a DequantizeLinear."""
    name = cast.input[0]
    before = graph.writers.get(name)
    return graph.constants.get(before.input[0] if before is not None else name)


def _both_operands(graph: _Graph) -> Iterator[str]:
    for name, node in graph.called(PRODUCTS):
        sides = [graph.cast(tensor) is not None for tensor in list(node.input)[:2]]
        if any(sides) and not all(sides):
            yield f"{name} ({'weights' if sides[0] else 'activations'} without Q/DQ)"


def _float_bias(graph: _Graph) -> Iterator[str]:
    for name, node in graph.called(("Conv", "ConvTranspose", "Gemm")):
        if len(node.input) > _BIAS and graph.cast(node.input[_BIAS]) is not None:
            yield name
    for name, node in graph.called(("DequantizeLinear",)):
        if graph.types.get(node.input[0]) == "int32":
            yield name


def _pairs(graph: _Graph) -> Iterator[str]:
    readers: Counter[str] = Counter()
    for node in graph.nodes:
        for tensor in node.input:
            readers[tensor] += node.op_type != "DequantizeLinear"
    for name, node in graph.called(("QuantizeLinear",)):
        if readers[node.output[0]] or node.output[0] in graph.outputs:
            yield f"{name} (read by an operator, not by DequantizeLinear)"
    for name, node in graph.called(("DequantizeLinear",)):
        before = graph.writers.get(node.input[0])
        if before is None or before.op_type != "QuantizeLinear":
            yield f"{name} (without QuantizeLinear in front)"


def _static(graph: _Graph) -> Iterator[str]:
    for tensor in graph.inputs:
        sizes = tensor.type.tensor_type.shape.dim
        if tensor.name not in graph.constants and not all(size.HasField("dim_value") for size in sizes):
            yield f"{tensor.name} (give trtexec --minShapes, --optShapes and --maxShapes)"


_RULES: dict[str, Callable[[_Graph], Iterator[str]]] = {
    "quantization is symmetric: every zero point is 0": _symmetric,
    "quantized types are int8": _signed,
    "scales are positive constants": _constant_scales,
    "an activation has one scale": _one_scale_for_activations,
    "weights have one scale, or one for each output channel": _weights_by_output_channel,
    "activations and weights of a product are both quantized": _both_operands,
    "biases are not quantized": _float_bias,
    "each QuantizeLinear is followed by DequantizeLinear, and each of those preceded": _pairs,
    "input shapes are fixed": _static,
}
