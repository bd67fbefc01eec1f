"""Rows: some of the vectors that a tensor held, spread evenly over all of them, in a fixed space."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Rows"]

Array = npt.NDArray[Any]

_NUMBERS = 2**17  # that are kept at most: a thousand rows of a hundred classes
_ROWS = 1024


@dataclass
class Rows:
    """Every n-th row of what passes by; n doubles whenever there are too many.

    Attributes:
        kept: The rows, of shape (k, channels).
        every: One of how many is kept.
        passed: How many passed by.
        most: How many are kept at most, and of how many numbers in all.

    Example:
        >>> rows = Rows()
        >>> rows.update(np.arange(3000).reshape(3000, 1))
        >>> rows.every, rows.kept[:3, 0].tolist()
        (4, [0.0, 4.0, 8.0])
    """

    kept: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    every: int = 1
    passed: int = 0
    most: tuple[int, int] = (_ROWS, _NUMBERS)

    def update(self, table: Array) -> None:
        """Look at rows.

        Args:
            table: Of shape (rows, channels); it is copied where it is kept.
        """
        first = -self.passed % self.every
        new = table[first :: self.every].astype(np.float32)
        self.kept = np.concatenate([self.kept.reshape(-1, table.shape[1]), new])
        self.passed += len(table)
        limit = max(2, min(self.most[0], self.most[1] // table.shape[1]))
        while len(self.kept) > limit:
            self.kept, self.every = self.kept[::2].copy(), 2 * self.every
