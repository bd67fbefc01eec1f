"""The operators of a ``.tflite`` file, with their number formats."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Operator", "operators", "precision_of", "writers"]


@dataclass(frozen=True)
class Operator:
    """One operator of a file.

    Attributes:
        kernel: What it computes, such as ``CONV_2D``.
        precision: The number format that it computes in, as deployment plans name it; ``"cast"``
            for QUANTIZE and DEQUANTIZE, ``"index"`` for shapes and indices, ``"opaque"`` for loops
            and branches, whose bodies are not examined.
        tensors: Names of the tensors that it writes and of the constants that it reads: the
            operators of the original graph that were fused into it.
        reads: Indices of the operators that it reads from.
        weights: Dtypes of the constants that it computes with, as stored.
        types: Dtypes of all tensors that it reads and writes, such as ``int8,int8,int32->int8``.
    """

    kernel: str
    precision: str
    tensors: tuple[str, ...] = ()
    reads: tuple[int, ...] = ()
    weights: tuple[str, ...] = ()
    types: str = ""


def operators(opened: Any, packed: Mapping[int, str] | None = None) -> Iterator[Operator]:
    """Yield the operators of the main subgraph of an interpreter without delegates, which would replace operators.

    ``packed`` has the dtypes of tensors of less than a byte (int4), by index: interpreters report them as int8.
    """
    tensors = {detail["index"]: detail for detail in opened.get_tensor_details()}
    inputs = {detail["index"] for detail in opened.get_input_details()}
    computed_by: dict[int, int] = {}
    narrow = packed or {}
    widened: dict[int, str] = {}  # float32 copies of weights that are stored narrower

    def dtype(index: int) -> str:
        return widened.get(index) or narrow.get(index) or np.dtype(tensors[index]["dtype"]).name

    # The interpreters have no public list of operators; all three have this private one:
    # https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/lite/python/interpreter.py
    for number, operator in enumerate(opened._get_ops_details()):
        reads = [int(index) for index in operator["inputs"] if index in tensors]
        writes = [int(index) for index in operator["outputs"] if index in tensors]
        constants = [index for index in reads if index in widened or (index not in computed_by and index not in inputs)]
        kernel = operator["op_name"]
        written, read = [dtype(index) for index in writes], [dtype(index) for index in reads]
        if kernel == "DEQUANTIZE" and constants:
            widened.update(dict.fromkeys(writes, dtype(constants[0])))
        weights = tuple(name for index in constants if (name := dtype(index)) not in ("int32", "int64", "bool"))
        yield Operator(
            kernel=kernel,
            precision=precision_of(kernel, {*written}, {*read}, weights),
            tensors=tuple(str(tensors[index]["name"]) for index in (*writes, *constants)),
            reads=tuple(sorted({computed_by[index] for index in reads if index in computed_by})),
            weights=weights,
            types=f"{','.join(read)}->{','.join(written)}",
        )
        computed_by.update(dict.fromkeys(writes, number))


def writers(opened: Any, outputs: Sequence[int]) -> Iterator[int]:
    """Yield the indices of the operators that compute output tensors, before casts; -1 for an input passed through."""
    computed_by: dict[int, int] = {}
    for number, operator in enumerate(opened._get_ops_details()):  # private, as above
        cast = operator["op_name"] in _CASTS
        writer = computed_by.get(int(operator["inputs"][0]), number) if cast else number
        computed_by.update({int(index): writer for index in operator["outputs"]})
    for index in outputs:
        yield computed_by.get(index, -1)


_CASTS = ("QUANTIZE", "DEQUANTIZE")
_CONTROL_FLOW = ("WHILE", "IF", "CALL_ONCE", "STABLEHLO_COMPOSITE")


def precision_of(kernel: str, written: set[str], read: set[str], weights: Sequence[str]) -> str:
    """Return ``Operator.precision`` of a kernel, from the dtypes that it writes, reads and has as weights.

    Example:
        >>> precision_of("CONV_2D", {"float32"}, {"float32"}, ["float16"])
        'float16'
    """
    if kernel in _CASTS:
        return "cast"
    if kernel in _CONTROL_FLOW:
        return "opaque"
    if not written & {"int8", "uint8", "int16", "float16", "float32"}:
        written = read  # comparisons and positions compute in the dtype that they read
    if written & {"int8", "uint8"}:
        return "int4" if "int4" in weights else "int8"
    if "int16" in written:
        return "int16x8"
    if "float32" not in written:
        return "float16" if "float16" in written else "index"
    if "int8" in weights or "uint8" in weights:
        return "int8_dynamic"
    return "float16" if "float16" in weights else "float32"
