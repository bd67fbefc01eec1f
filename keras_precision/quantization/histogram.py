"""Histogram: the distribution of a tensor's values, in constant memory."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import DataError

__all__ = ["BINS", "Histogram"]

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

BINS = 2048
"""Bins on either side of zero: 8 to 16 per step of int8, for any range."""

_SMALLEST = -100  # the exponent of two of the smallest range


def _empty() -> Counts:
    return np.zeros(BINS, np.int64)


@dataclass
class Histogram:
    """A streaming histogram that does not depend on the order or the batches of the values.

    Bins are anchored at zero and their width is a power of two. Where a value lies beyond the last
    bin, the width doubles and bins are joined in pairs, which loses nothing: the result is that of
    one pass over all values with the final width. Values of exactly zero are counted separately, since
    every quantizer represents them without error.

    Attributes:
        minimum: The smallest value; infinity if there was none.
        maximum: The largest value; minus infinity if there was none.
        exponent: Bins extend to ``2 ** exponent`` on either side.
        above: Counts of values above zero, from zero outward.
        below: Counts of values below zero, from zero outward.
        zeros: Values of exactly zero.

    Example:
        >>> histogram = Histogram()
        >>> histogram.update(np.array([0.0, 1.0, -3.0], np.float32))
        >>> histogram.count, histogram.minimum, histogram.maximum
        (3, -3.0, 1.0)
    """

    minimum: float = math.inf
    maximum: float = -math.inf
    exponent: int = _SMALLEST
    above: Counts = field(default_factory=_empty)
    below: Counts = field(default_factory=_empty)
    zeros: int = 0

    @property
    def width(self) -> float:
        """The width of a bin."""
        return math.ldexp(1.0, self.exponent) / BINS

    @property
    def count(self) -> int:
        """The number of values."""
        return int(self.above.sum() + self.below.sum()) + self.zeros

    def update(self, values: Array) -> None:
        """Count values, of any shape; DataError, with nothing counted, if one is NaN or infinite."""
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError("Expected finite values. Received: NaN or infinity.")
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self._widen(math.frexp(max(-low, high))[1])
        flat = values.reshape(-1)
        scaled = flat * np.float32(1 / self.width)
        bins = np.floor(scaled, out=scaled).astype(np.intp)
        bins += BINS
        counts = np.bincount(bins, minlength=2 * BINS)
        zeros = flat.size - int(np.count_nonzero(flat))
        counts[BINS] -= zeros
        self.zeros += zeros
        self.above += counts[BINS:]
        self.below += counts[BINS - 1 :: -1]

    def bins(self) -> tuple[Array, Counts]:
        """Return the centres of the bins, ascending, and their counts without zeros; both of shape (2 * BINS,)."""
        outward = (np.arange(BINS) + 0.5) * self.width
        return np.concatenate([-outward[::-1], outward]), np.concatenate([self.below[::-1], self.above])

    def outside(self, low: float, high: float) -> float:
        """Return the share of values outside a range, between 0 and 1, to the width of a bin."""
        centres, counts = self.bins()
        return float(counts[(centres < low) | (centres > high)].sum() / max(1, self.count))

    def _widen(self, exponent: int) -> None:
        """Widen the bins until they extend to ``2 ** exponent``."""
        doublings = exponent - self.exponent
        if doublings > 0:
            self.above, self.below = _joined(self.above, doublings), _joined(self.below, doublings)
            self.exponent = exponent


def _joined(counts: Counts, doublings: int) -> Counts:
    """Return the counts of bins that are ``2 ** doublings`` times as wide."""
    groups = min(2**doublings, BINS) if doublings < 62 else BINS
    joined = _empty()
    joined[: BINS // groups] = counts.reshape(-1, groups).sum(axis=1)
    return joined
