"""RowSample: an evenly spaced sample of a tensor's rows, in constant memory."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["RowSample"]

Array = npt.NDArray[Any]

_NUMBERS = 2**17  # a thousand rows of a hundred classes
_ROWS = 1024


@dataclass
class RowSample:
    """Every n-th row of a stream; n doubles whenever there are too many.

    Attributes:
        rows: The sampled rows, of shape (k, channels).
        stride: n.
        count: The rows of the stream so far.
        limits: The largest number of rows, and of numbers in all of them.

    Example:
        >>> sample = RowSample()
        >>> sample.update(np.arange(3000).reshape(3000, 1))
        >>> sample.stride, sample.rows[:3, 0].tolist()
        (4, [0.0, 4.0, 8.0])
    """

    rows: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    stride: int = 1
    count: int = 0
    limits: tuple[int, int] = (_ROWS, _NUMBERS)

    def update(self, table: Array) -> None:
        """Add a table of shape (rows, channels), of which sampled rows are copied."""
        first = -self.count % self.stride
        sampled = table[first :: self.stride].astype(np.float32)
        self.rows = np.concatenate([self.rows.reshape(-1, table.shape[1]), sampled])
        self.count += len(table)
        limit = max(2, min(self.limits[0], self.limits[1] // table.shape[1]))
        while len(self.rows) > limit:
            self.rows, self.stride = self.rows[::2].copy(), 2 * self.stride
