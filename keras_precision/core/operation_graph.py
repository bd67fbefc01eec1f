"""OperationGraph: what a model computes, operation by operation, the same whatever framework traced it."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Kind", "Operation", "OperationGraph"]

Kind = Literal[
    "input", "constant", "cast", "add", "sub", "mul", "div", "neg", "abs", "square", "exp", "log", "sqrt", "maximum",
    "minimum", "sum", "mean", "max", "softmax", "select", "other",
]  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        kind: What it does.
        dtype: The type of what it makes.
        reads: Numbers of the operations whose results it reads.
        path: The path of the layer that it belongs to; empty where that is not known.
        line: File and line of a user's own code that asked for it; empty where a library did.
        value: Of a constant: its number.
        terms: Of a reduction: how many numbers become one.
    """

    kind: Kind
    dtype: str
    reads: tuple[int, ...] = ()
    path: str = ""
    line: str = ""
    value: float | None = None
    terms: int = 1

    @property
    def is_half(self) -> bool:
        """Whether it makes 16-bit floats."""
        return self.dtype in ("float16", "bfloat16")


@dataclass(frozen=True)
class OperationGraph:
    """Operations, each behind those that it reads.

    Attributes:
        operations: They.
        source: What they were read from, in words.
        accumulates_wide: Whether its framework adds up 16-bit numbers in 32 bits by itself.
    """

    operations: tuple[Operation, ...]
    source: str
    accumulates_wide: bool = False

    def read_by(self, operation: Operation) -> list[Operation]:
        """Return the operations whose results one reads."""
        return [self.operations[number] for number in operation.reads]
