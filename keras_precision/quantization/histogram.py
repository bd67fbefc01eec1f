"""Histogram: what values a tensor takes, kept in a fixed space however many there are."""

import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import DataError

__all__ = ["BINS", "Histogram"]

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

BINS = 2048
"""Bins on each side of zero: 8 to 16 of them to a step of int8, whatever the range."""

_SMALLEST = -100  # the exponent of two below which a tensor's values count as zero


def _none() -> Counts:
    return np.zeros(BINS, np.int64)


@dataclass
class Histogram:
    """A streaming histogram that does not depend on the order or the batches in which values came.

    Bins are anchored at zero and their width is a power of two. Where a value lies beyond the last
    bin, the width doubles and bins are joined in pairs, which loses nothing: the result is that of
    one pass over all values with the final width. Values of exactly zero are counted apart, since
    every quantizer represents them without error.

    Attributes:
        minimum: The smallest value seen; infinity if there was none.
        maximum: The largest value seen; minus infinity if there was none.
        exponent: Bins reach to ``2 ** exponent`` on either side.
        above: Counts of values above zero, from zero outward.
        below: Counts of values below zero, from zero outward.
        zeros: Values of exactly zero.

    Example:
        >>> seen = Histogram()
        >>> seen.update(np.array([0.0, 1.0, -3.0], np.float32))
        >>> seen.count, seen.minimum, seen.maximum
        (3, -3.0, 1.0)
    """

    minimum: float = math.inf
    maximum: float = -math.inf
    exponent: int = _SMALLEST
    above: Counts = field(default_factory=_none)
    below: Counts = field(default_factory=_none)
    zeros: int = 0

    @property
    def width(self) -> float:
        """The width of a bin."""
        return math.ldexp(1.0, self.exponent) / BINS

    @property
    def count(self) -> int:
        """How many values were seen."""
        return int(self.above.sum() + self.below.sum()) + self.zeros

    def update(self, values: Array) -> None:
        """Count values.

        Args:
            values: Finite real numbers, of any shape; none at all are allowed.

        Raises:
            DataError: A value is NaN or infinite; nothing was counted.
        """
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError("Expected finite values. Received: NaN or infinity.")
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self._reach(math.frexp(max(-low, high))[1])
        flat = values.reshape(-1)
        part = flat * np.float32(1 / self.width)
        bins = np.floor(part, out=part).astype(np.intp)
        bins += BINS
        counts = np.bincount(bins, minlength=2 * BINS)
        exact = flat.size - int(np.count_nonzero(flat))
        counts[BINS] -= exact
        self.zeros += exact
        self.above += counts[BINS:]
        self.below += counts[BINS - 1 :: -1]

    def merge(self, other: Self) -> None:
        """Count what another histogram has counted.

        Args:
            other: It is not changed.
        """
        self.minimum, self.maximum = min(self.minimum, other.minimum), max(self.maximum, other.maximum)
        self._reach(other.exponent)
        doublings = self.exponent - other.exponent
        self.above += _joined(other.above, doublings)
        self.below += _joined(other.below, doublings)
        self.zeros += other.zeros

    def bins(self) -> tuple[Array, Counts]:
        """Return the bins in ascending order.

        Returns:
            The centre of each bin, and how many values other than zero lie in it; both of shape (2 * BINS,).
        """
        outward = (np.arange(BINS) + 0.5) * self.width
        return np.concatenate([-outward[::-1], outward]), np.concatenate([self.below[::-1], self.above])

    def outside(self, low: float, high: float) -> float:
        """Return the share of values outside a range, to the width of a bin.

        Args:
            low: The lower end.
            high: The upper end.

        Returns:
            Between 0 and 1.
        """
        centres, counts = self.bins()
        return float(counts[(centres < low) | (centres > high)].sum() / max(1, self.count))

    def _reach(self, exponent: int) -> None:
        """Widen the bins until they reach to ``2 ** exponent``."""
        doublings = exponent - self.exponent
        if doublings > 0:
            self.above, self.below = _joined(self.above, doublings), _joined(self.below, doublings)
            self.exponent = exponent


def _joined(counts: Counts, doublings: int) -> Counts:
    """The counts of bins that are ``2 ** doublings`` times as wide."""
    groups = min(2**doublings, BINS) if doublings < 62 else BINS
    joined = _none()
    joined[: BINS // groups] = counts.reshape(-1, groups).sum(axis=1)
    return joined
