"""The operators of an ONNX graph, with their number formats."""

from collections.abc import Iterator, Mapping
from typing import Any

from keras_precision.runtimes.tflite.operators import Operator

__all__ = ["CASTS", "INTEGER_KERNELS", "PRODUCTS", "node_name", "onnx_operators", "onnx_writers"]

CASTS = ("QuantizeLinear", "DequantizeLinear")
"""ONNX marks with them that the operators between them compute in integers; they are not operators of their own."""

PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
"""Operators with weights, whose sums are exact in integers."""

_MOVES = frozenset(
    [
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Pad",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ]
)

_INTEGER = """
Add AveragePool Clip Concat Conv Flatten Gather Gemm GlobalAveragePool LeakyRelu MatMul MaxPool Mul Pad Relu Reshape
Resize Sigmoid Slice Softmax Split Squeeze Transpose Unsqueeze Where
"""
INTEGER_KERNELS = frozenset(_INTEGER.split())
"""Kernels that ONNX Runtime 1.32 computes in integers on a processor; around others it dequantizes and quantizes."""


def node_name(node: Any, number: int) -> str:
    """Return the name of a node, or its kernel and position if it has none."""
    return str(node.name) or f"{node.op_type}_{number}"


def onnx_operators(graph: Any, types: Mapping[str, str]) -> Iterator[Operator]:
    """Yield the operators of a graph in the order in which they run, without ``CASTS``."""
    constants = {tensor.name for tensor in graph.initializer}
    dequantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    quantized = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    packed = _packed(graph, constants)
    writers: dict[str, int] = {}
    number = 0
    for node in graph.node:
        if node.op_type in CASTS:
            writers.update({name: writers[node.input[0]] for name in node.output if node.input[0] in writers})
            continue
        read = [name for name in node.input if name]
        fixed = [name for name in read if name in constants or name in packed]
        weights = tuple(packed.get(name) or types.get(name, "") for name in fixed)
        yield Operator(
            kernel=node.op_type,
            precision=_precision(node, types, dequantized, quantized, fixed),
            tensors=(*node.output, *fixed),
            reads=tuple(sorted({writers[name] for name in read if name in writers})),
            weights=tuple(name for name in weights if name not in ("int32", "int64", "bool", "")),
            types=f"{','.join(types.get(name, '?') for name in read)}->{','.join(types.get(name, '?') for name in node.output)}",
        )
        writers.update(dict.fromkeys(node.output, number))
        number += 1


def onnx_writers(graph: Any) -> Iterator[int]:
    """Yield the indices of the operators that compute the outputs, before casts; -1 for an input passed through."""
    writers: dict[str, int] = {}
    number = 0
    for node in graph.node:
        cast = node.op_type in (*CASTS, "Cast")
        before = writers.get(node.input[0], number) if cast else number
        writers.update(dict.fromkeys(node.output, before))
        number += node.op_type not in CASTS
    for output in graph.output:
        yield writers.get(output.name, -1)


def _packed(graph: Any, constants: set[str]) -> dict[str, str]:
    """Outputs of a DequantizeLinear, or of a pair of casts, of constants, to the dtype in which those are stored."""
    packed: dict[str, str] = {}
    for node in graph.node:
        if (node.op_type == "QuantizeLinear" and node.input[0] in constants) or (
            node.op_type == "DequantizeLinear" and (node.input[0] in constants or node.input[0] in packed)
        ):
            packed[node.output[0]] = "int8"
    return packed


def _precision(
    node: Any, types: Mapping[str, str], dequantized: Mapping[str, str], quantized: set[str], fixed: list[str]
) -> str:
    """The number format, as ``Operator.precision``."""
    written = {types.get(name, "?") for name in node.output}
    if not written & {"float32", "float16", "?"}:
        written = {types.get(name, "?") for name in node.input if name}
    if not written & {"float32", "float16", "?"}:
        return "index"
    if node.op_type == "Cast" or types.get(node.output[0]) == "bool":
        return "cast" if node.op_type == "Cast" else "index"
    if any(attribute.g.node for attribute in node.attribute):
        return "opaque"
    floats = [name for name in node.input if types.get(name) == "float32"]
    moving = [name for name in floats if name not in fixed]
    reads_integers = bool(moving) and all(name in dequantized for name in [*moving, *_operands(node, floats)])
    writes_integers = any(name in quantized for name in node.output)
    if reads_integers and node.op_type in PRODUCTS:
        return "int8"
    if reads_integers and writes_integers and node.op_type in INTEGER_KERNELS:
        return "int8"
    if node.op_type in _MOVES and len(moving) == len(floats):
        return "index"  # it moves its inputs, and computes nothing
    return "float16" if "float16" in written else "float32"


def _operands(node: Any, floats: list[str]) -> list[str]:
    """The inputs that decide whether it computes in integers: of a product, not the third, a bias."""
    return list(node.input)[:2] if node.op_type in PRODUCTS else floats
