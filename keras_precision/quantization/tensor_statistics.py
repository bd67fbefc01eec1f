"""Seen: what one tensor held while representative data ran."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.formats.affine_integers import Range
from keras_precision.quantization.histogram import Histogram
from keras_precision.quantization.range_estimators import range_of
from keras_precision.quantization.row_sample import Rows
from keras_precision.quantization.softmax_range import range_before_softmax

__all__ = ["Seen"]

Array = npt.NDArray[Any]

_BLOCK = 65536


@dataclass
class Seen:
    """What one tensor held.

    Attributes:
        values: All values.
        low: The smallest value of each channel (last axis), of shape (channels,).
        high: The largest, likewise.
        total: The sum, likewise.
        rows: How many values each channel's sum is of.
        samples: Some of its rows, where a softmax reads it.
    """

    values: Histogram = field(default_factory=Histogram)
    low: Array = field(default_factory=lambda: np.zeros(0))
    high: Array = field(default_factory=lambda: np.zeros(0))
    total: Array = field(default_factory=lambda: np.zeros(0))
    rows: int = 0
    samples: Rows | None = None

    @property
    def mean(self) -> Array:
        """The mean of each channel."""
        return self.total / max(1, self.rows)

    def update(self, values: Array) -> None:
        """Add what the tensor held in one run.

        Args:
            values: Values, channels last.

        Raises:
            DataError: A value is NaN or infinite.
        """
        table = values.reshape(-1, values.shape[-1] if values.ndim else 1)
        rows, channels = table.shape
        # Narrow tables are slow to reduce: rows are laid side by side, and their channels folded after.
        beside = math.gcd(rows, 2 ** max(0, 9 - channels.bit_length()))
        wide = table.reshape(rows // beside, beside * channels)
        step = max(1, _BLOCK // wide.shape[1])
        for start in range(0, len(wide), step):  # what fits the processor's cache is several times as fast
            self._add(wide[start : start + step], (beside, channels))
        self.rows += rows
        if self.samples is not None:
            self.samples.update(table)

    def range(self, method: str, percentile: float) -> Range:
        """Choose the range in which the tensor is to be quantized.

        Args:
            method: One of ``METHODS``.
            percentile: For the method of that name.

        Returns:
            Lower and upper end.
        """
        found = range_of(self.values, method, percentile)
        if method != "mse" or self.samples is None or found[0] == found[1]:
            return found
        return range_before_softmax(self.samples.kept, range_of(self.values, "minmax"))

    def _add(self, block: Array, fold: tuple[int, int]) -> None:
        self.values.update(block)
        low = block.min(axis=0).reshape(fold).min(axis=0)
        high = block.max(axis=0).reshape(fold).max(axis=0)
        total = block.sum(axis=0).reshape(fold).sum(axis=0, dtype=np.float64)
        if self.low.size:
            low, high, total = np.minimum(self.low, low), np.maximum(self.high, high), self.total + total
        self.low, self.high, self.total = low, high, total
