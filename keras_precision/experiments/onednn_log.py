"""Kernels that oneDNN, the CPU library of TensorFlow and PyTorch, reports in its log."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["BEGIN", "END", "VERBOSE", "Kernels", "kernels_of"]

VERBOSE = {"ONEDNN_VERBOSE": "1"}
"""The environment in which oneDNN writes a line per kernel."""

BEGIN, END = "keras_precision: the trace begins", "keras_precision: the trace ends"
"""Marks around the lines that count."""

_PRODUCTS = ("matmul", "inner_product", "convolution", "deconvolution", "rnn")
_LOW_PRECISION = re.compile(r"\b(?:src|src_layer)[:_](?:bf16|f16)\b")
_CAST = re.compile(r"\bsrc[:_](\w+?)::.*\bdst[:_](\w+?)::")


@dataclass(frozen=True)
class Kernels:
    """Kernels of a trace.

    Attributes:
        products: Matrix products and convolutions.
        low_precision: Those of them that read 16-bit floats.
        milliseconds: Time of all products.
        low_precision_milliseconds: Time of those that read 16-bit floats.
        casts: Reorders from one type to another.
    """

    products: int = 0
    low_precision: int = 0
    milliseconds: float = 0.0
    low_precision_milliseconds: float = 0.0
    casts: int = 0


def kernels_of(log: Iterable[str]) -> Kernels:
    """Return the kernels between the two marks of a child's log.

    Example:
        >>> line = "onednn_verbose,v1,primitive,exec,cpu,matmul,brg:avx512_core_bf16,undef,src:bf16::blocked:ab::f0 dst:f32::blocked:ab::f0,,,8x8,0.5"
        >>> kernels_of([BEGIN, line, END]).low_precision
        1
    """
    inside = False
    products, low_precision, casts = [], [], 0
    for line in log:
        inside = BEGIN in line or (inside and END not in line)
        fields = line.strip().split(",")
        if not inside or "onednn_verbose" not in fields[0] or "exec" not in fields:
            continue
        kind, described = fields[fields.index("exec") + 2], line
        if kind in _PRODUCTS:
            products.append(float(fields[-1]))
            low_precision += [products[-1]] if _LOW_PRECISION.search(described) else []
        elif kind == "reorder":
            types = _CAST.search(described)
            casts += types is not None and types[1] != types[2]
    return Kernels(len(products), len(low_precision), sum(products), sum(low_precision), casts)
