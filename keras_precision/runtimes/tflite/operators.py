"""The operators of a ``.tflite`` file, and the number format that each computes in."""

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
        precision: The number format that it computes in, as deployment plans name them; ``"cast"``
            for QUANTIZE and DEQUANTIZE, ``"index"`` for shapes and indices, ``"opaque"`` for loops
            and branches, whose inside is not looked into.
        tensors: Names of the tensors that it writes and of the constants that it reads: the
            operators of the original graph that were fused into it.
        reads: Numbers of the operators that it reads from.
        weights: Element types of the constants that it computes with, as stored.
        types: Element types of all that it reads and writes, such as ``int8,int8,int32->int8``.
    """

    kernel: str
    precision: str
    tensors: tuple[str, ...] = ()
    reads: tuple[int, ...] = ()
    weights: tuple[str, ...] = ()
    types: str = ""


def operators(opened: Any, packed: Mapping[int, str] | None = None) -> Iterator[Operator]:
    """Yield the operators of a file's main subgraph."""
    tensors = {detail["index"]: detail for detail in opened.get_tensor_details()}
    given = {detail["index"] for detail in opened.get_input_details()}
    made_by: dict[int, int] = {}
    narrow = packed or {}
    widened: dict[int, str] = {}  # float32 copies of weights that are stored narrower

    def dtype(index: int) -> str:
        return widened.get(index) or narrow.get(index) or np.dtype(tensors[index]["dtype"]).name

    # The interpreters have no public list of operators; the three share this one.
    for number, operator in enumerate(opened._get_ops_details()):
        reads = [int(index) for index in operator["inputs"] if index in tensors]
        writes = [int(index) for index in operator["outputs"] if index in tensors]
        constants = [index for index in reads if index in widened or (index not in made_by and index not in given)]
        kernel = operator["op_name"]
        written, read = [dtype(index) for index in writes], [dtype(index) for index in reads]
        if kernel == "DEQUANTIZE" and constants:
            widened.update(dict.fromkeys(writes, dtype(constants[0])))
        weights = tuple(name for index in constants if (name := dtype(index)) not in ("int32", "int64", "bool"))
        yield Operator(
            kernel=kernel,
            precision=precision_of(kernel, {*written}, {*read}, weights),
            tensors=tuple(str(tensors[index]["name"]) for index in (*writes, *constants)),
            reads=tuple(sorted({made_by[index] for index in reads if index in made_by})),
            weights=weights,
            types=f"{','.join(read)}->{','.join(written)}",
        )
        made_by.update(dict.fromkeys(writes, number))


def writers(opened: Any, outputs: Sequence[int]) -> Iterator[int]:
    """Yield the operator that computes each output, behind the casts at the file's edge."""
    computed: dict[int, int] = {}
    for number, operator in enumerate(opened._get_ops_details()):
        cast = operator["op_name"] in _CASTS
        before = computed.get(int(operator["inputs"][0]), number) if cast else number
        computed.update({int(index): before for index in operator["outputs"]})
    for index in outputs:
        yield computed.get(index, -1)


_CASTS = ("QUANTIZE", "DEQUANTIZE")
_CONTROL_FLOW = ("WHILE", "IF", "CALL_ONCE", "STABLEHLO_COMPOSITE")


def precision_of(kernel: str, written: set[str], read: set[str], weights: Sequence[str]) -> str:
    """Name the number format that an operator computes in.

    Example:
        >>> precision_of("CONV_2D", {"float32"}, {"float32"}, ["float16"])
        'float16'
    """
    if kernel in _CASTS:
        return "cast"
    if kernel in _CONTROL_FLOW:
        return "opaque"
    if not written & {"int8", "uint8", "int16", "float16", "float32"}:
        written = read  # comparisons and positions compute in what they read
    if written & {"int8", "uint8"}:
        return "int4" if "int4" in weights else "int8"
    if "int16" in written:
        return "int16x8"
    if "float32" not in written:
        return "float16" if "float16" in written else "index"
    if "int8" in weights or "uint8" in weights:
        return "int8_dynamic"
    return "float16" if "float16" in weights else "float32"
