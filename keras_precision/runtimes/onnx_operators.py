"""The operators of an ONNX graph, and the number format that each computes in."""

from collections.abc import Iterator, Mapping
from typing import Any

from keras_precision.runtimes.tflite.operators import Operator

__all__ = ["CASTS", "INTEGER_KERNELS", "PRODUCTS", "node_name", "onnx_operators", "onnx_writers"]

CASTS = ("QuantizeLinear", "DequantizeLinear")
"""How ONNX notes that what stands between them is computed in integers; no operators of their own."""

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
"""What ONNX Runtime 1.32 computes in integers on a processor; around others it widens, and narrows again."""


def node_name(node: Any, number: int) -> str:
    """Return a name for a node, of its own where the graph gives none."""
    return str(node.name) or f"{node.op_type}_{number}"


def onnx_operators(graph: Any, types: Mapping[str, str]) -> Iterator[Operator]:
    """Yield the operators of a graph, without the casts that note integers."""
    constants = {each.name for each in graph.initializer}
    dequantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    quantized = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    packed = _packed(graph, constants)
    made_by: dict[str, int] = {}
    number = 0
    for node in graph.node:
        if node.op_type in CASTS:
            made_by.update({name: made_by[node.input[0]] for name in node.output if node.input[0] in made_by})
            continue
        read = [name for name in node.input if name]
        fixed = [name for name in read if name in constants or name in packed]
        weights = tuple(packed.get(name) or types.get(name, "") for name in fixed)
        yield Operator(
            kernel=node.op_type,
            precision=_precision(node, types, dequantized, quantized, fixed),
            tensors=(*node.output, *fixed),
            reads=tuple(sorted({made_by[name] for name in read if name in made_by})),
            weights=tuple(name for name in weights if name not in ("int32", "int64", "bool", "")),
            types=f"{','.join(types.get(name, '?') for name in read)}->{','.join(types.get(name, '?') for name in node.output)}",
        )
        made_by.update(dict.fromkeys(node.output, number))
        number += 1


def onnx_writers(graph: Any) -> Iterator[int]:
    """Yield the operator that computes each output, behind the casts."""
    made_by: dict[str, int] = {}
    number = 0
    for node in graph.node:
        cast = node.op_type in (*CASTS, "Cast")
        before = made_by.get(node.input[0], number) if cast else number
        made_by.update(dict.fromkeys(node.output, before))
        number += node.op_type not in CASTS
    for output in graph.output:
        yield made_by.get(output.name, -1)


def _packed(graph: Any, constants: set[str]) -> dict[str, str]:
    """Constants behind a DequantizeLinear, or a pair of casts, to the type that they are stored in."""
    found: dict[str, str] = {}
    for node in graph.node:
        if (node.op_type == "QuantizeLinear" and node.input[0] in constants) or (
            node.op_type == "DequantizeLinear" and (node.input[0] in constants or node.input[0] in found)
        ):
            found[node.output[0]] = "int8"
    return found


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
    noted = bool(moving) and all(name in dequantized for name in moving) and _weights_too(node, floats, dequantized)
    after = any(name in quantized for name in node.output)
    if noted and node.op_type in PRODUCTS:
        return "int8"
    if noted and after and node.op_type in INTEGER_KERNELS:
        return "int8"
    if node.op_type in _MOVES and len(moving) == len(floats):
        return "index"  # moves what it is given, and computes nothing
    return "float16" if "float16" in written else "float32"


def _weights_too(node: Any, floats: list[str], dequantized: Mapping[str, str]) -> bool:
    """Whether the second operand of a product is in integers as well; the third, a bias, may be in float."""
    if node.op_type not in PRODUCTS:
        return all(name in dequantized for name in floats)
    return all(name in dequantized for name in list(node.input)[:2])
