"""OperationGraph: the operations of a model, in one form for every framework."""

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
        kind: What it computes.
        dtype: The dtype of its result.
        reads: Indices of the operations whose results it reads.
        path: The path of its layer; empty if unknown.
        line: File and line of the user's code that called it; empty if a library did.
        value: The value of a constant.
        terms: The number of values that a reduction reduces to one.
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
        """Whether its result is in 16-bit floats."""
        return self.dtype in ("float16", "bfloat16")


@dataclass(frozen=True)
class OperationGraph:
    """Operations in topological order.

    Attributes:
        operations: The operations.
        source: What they were read from, in words.
        accumulates_wide: Whether the framework accumulates sums of 16-bit numbers in 32 bits.
    """

    operations: tuple[Operation, ...]
    source: str
    accumulates_wide: bool = False

    def read_by(self, operation: Operation) -> list[Operation]:
        """Return the operations whose results ``operation`` reads."""
        return [self.operations[number] for number in operation.reads]
