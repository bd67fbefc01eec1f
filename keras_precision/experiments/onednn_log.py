"""Kernels: what oneDNN, which computes on processors for TensorFlow and PyTorch, says that it ran."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["BEGIN", "END", "VERBOSE", "Kernels", "kernels_of"]

VERBOSE = {"ONEDNN_VERBOSE": "1"}
"""The environment in which oneDNN writes a line for each kernel that it runs."""

BEGIN, END = "keras_precision: the trace begins", "keras_precision: the trace ends"
"""Lines around those that count."""

_PRODUCTS = ("matmul", "inner_product", "convolution", "deconvolution", "rnn")
_NARROW = re.compile(r"\b(?:src|src_layer)[:_](?:bf16|f16)\b")
_CAST = re.compile(r"\bsrc[:_](\w+?)::.*\bdst[:_](\w+?)::")


@dataclass(frozen=True)
class Kernels:
    """What was run while a trace was written.

    Attributes:
        products: Matrix products and convolutions.
        narrow: Those of them that read 16-bit floats.
        milliseconds: Time of all of them.
        narrow_milliseconds: Time of those that read 16-bit floats.
        casts: Reorders from one type to another.
    """

    products: int = 0
    narrow: int = 0
    milliseconds: float = 0.0
    narrow_milliseconds: float = 0.0
    casts: int = 0


def kernels_of(log: Iterable[str]) -> Kernels:
    """Read what oneDNN wrote.

    Args:
        log: Lines of a child's log.

    Returns:
        The kernels between the two marks.

    Example:
        >>> line = "onednn_verbose,v1,primitive,exec,cpu,matmul,brg:avx512_core_bf16,undef,src:bf16::blocked:ab::f0 dst:f32::blocked:ab::f0,,,8x8,0.5"
        >>> kernels_of([BEGIN, line, END]).narrow
        1
    """
    inside = False
    products, narrow, casts = [], [], 0
    for line in log:
        inside = BEGIN in line or (inside and END not in line)
        fields = line.strip().split(",")
        if not inside or "onednn_verbose" not in fields[0] or "exec" not in fields:
            continue
        kind, described = fields[fields.index("exec") + 2], line
        if kind in _PRODUCTS:
            products.append(float(fields[-1]))
            narrow += [products[-1]] if _NARROW.search(described) else []
        elif kind == "reorder":
            types = _CAST.search(described)
            casts += types is not None and types[1] != types[2]
    return Kernels(len(products), len(narrow), sum(products), sum(narrow), casts)
