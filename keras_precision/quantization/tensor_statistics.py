"""TensorStatistics: the statistics of one tensor on representative data."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.formats.affine_integers import Range
from keras_precision.quantization.histogram import Histogram
from keras_precision.quantization.range_estimators import estimate_range
from keras_precision.quantization.row_sample import RowSample
from keras_precision.quantization.softmax_range import softmax_input_range

__all__ = ["TensorStatistics"]

Array = npt.NDArray[Any]

_BLOCK = 65536
_LARGE = 1e30


@dataclass
class TensorStatistics:
    """Statistics of one tensor.

    Attributes:
        values: All values.
        low: The smallest value per channel (last axis), of shape (channels,).
        high: The largest value per channel.
        total: The sum per channel.
        rows: The number of values in the sum of a channel.
        samples: A sample of its rows, where a softmax reads the tensor.
    """

    values: Histogram = field(default_factory=Histogram)
    low: Array = field(default_factory=lambda: np.zeros(0))
    high: Array = field(default_factory=lambda: np.zeros(0))
    total: Array = field(default_factory=lambda: np.zeros(0))
    rows: int = 0
    samples: RowSample | None = None

    @property
    def mean(self) -> Array:
        """The mean per channel."""
        return self.total / max(1, self.rows)

    def update(self, values: Array) -> None:
        """Add the values of one run, channels last; DataError if one is NaN or infinite."""
        table = values.reshape(-1, values.shape[-1] if values.ndim else 1)
        rows, channels = table.shape
        # Narrow tables are slow to reduce: rows are joined into wider ones, whose channels are folded afterwards.
        joined = math.gcd(rows, 2 ** max(0, 9 - channels.bit_length()))
        wide = table.reshape(rows // joined, joined * channels)
        step = max(1, _BLOCK // wide.shape[1])
        for start in range(0, len(wide), step):  # blocks that fit the processor's cache are several times as fast
            self._add(wide[start : start + step], (joined, channels))
        self.rows += rows
        if self.samples is not None:
            self.samples.update(table)

    def range(self, method: str, percentile: float) -> Range:
        """Return the range in which to quantize the tensor; ``"mse"`` considers a softmax that reads it."""
        estimated = estimate_range(self.values, method, percentile)
        if method != "mse" or self.samples is None or estimated[0] == estimated[1]:
            return estimated
        return softmax_input_range(self.samples.rows, estimate_range(self.values, "minmax"))

    def _add(self, block: Array, fold: tuple[int, int]) -> None:
        self.values.update(block)
        low = block.min(axis=0).reshape(fold).min(axis=0)
        high = block.max(axis=0).reshape(fold).max(axis=0)
        # A mask may be the lowest float, of which the sum of two is none; sums in float64 take longer.
        wide = np.float64 if max(-low.min(), high.max()) > _LARGE else None
        total = block.sum(axis=0, dtype=wide).reshape(fold).sum(axis=0, dtype=np.float64)
        if self.low.size:
            low, high, total = np.minimum(self.low, low), np.maximum(self.high, high), self.total + total
        self.low, self.high, self.total = low, high, total
