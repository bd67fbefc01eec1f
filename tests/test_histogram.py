"""Histogram: what it counts, whatever the order and the batches."""

import math

import numpy as np
import pytest

from keras_precision.core.errors import DataError
from keras_precision.quantization.histogram import BINS, Histogram


def counted(*parts):
    """Return the histogram of parts, one after the other."""
    seen = Histogram()
    for part in parts:
        seen.update(np.asarray(part, np.float32))
    return seen


def state(seen):
    """Return all that a histogram holds, to compare."""
    counts = (seen.above.tolist(), seen.below.tolist())
    return (seen.minimum, seen.maximum, seen.exponent, seen.zeros, *counts)


@pytest.fixture
def values(rng):
    """Values of four scales, zeros among them, the largest in the middle."""
    parts = [rng.normal(size=500) * scale for scale in (0.01, 1.0, 300.0, 0.1)]
    return np.concatenate([*parts, np.zeros(77)]).astype("float32")


def test_order_and_batches_make_no_difference(values, rng):
    """Pieces of any size, in any order, are counted as all values at once are."""
    whole = state(counted(values))
    shuffled = rng.permutation(values)
    assert state(counted(*np.array_split(shuffled, 37))) == whole
    assert state(counted(*np.array_split(np.sort(values), 5))) == whole


def test_bins_hold_what_lies_in_them(values):
    """Each bin's count is that of a sort into intervals of its width, and zeros are apart."""
    seen = counted(values)
    centres, counts = seen.bins()
    edges = np.append(centres - seen.width / 2, centres[-1] + seen.width / 2)
    expected, _ = np.histogram(values[values != 0].astype(np.float64), edges)
    # NumPy's intervals are closed on the left, as these are on both sides of zero.
    np.testing.assert_array_equal(counts, expected)
    assert (seen.zeros, seen.count) == (77, len(values))
    assert (seen.minimum, seen.maximum) == (values.min(), values.max())


def test_at_least_1024_bins_reach_to_the_largest_value(values):
    """The width doubles no more often than it must: a step of int8 has several bins."""
    seen = counted(values)
    assert np.abs(values).max() / seen.width > BINS / 2


def test_space_does_not_grow(rng):
    """A million values take the arrays that one value takes."""
    small, large = counted([1.0]), counted(*(rng.normal(size=10**5) for _ in range(10)))
    assert small.above.nbytes == large.above.nbytes == small.below.nbytes == large.below.nbytes


def test_share_outside_a_range(values):
    """The share of values beyond the ends is right to a bin."""
    seen = counted(values)
    expected = np.mean((values < -5) | (values > 20))
    assert math.isclose(seen.outside(-5, 20), expected, abs_tol=0.01)
    assert seen.outside(-1e9, 1e9) == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(values, wrong):
    """NaN and infinity raise, and nothing of the piece is counted."""
    seen = counted(values)
    before = state(seen)
    with pytest.raises(DataError, match="Expected finite values"):
        seen.update(np.array([1e6, wrong], np.float32))
    assert state(seen) == before


def test_nothing_is_counted_of_nothing():
    """An empty array changes nothing."""
    assert counted([]).count == 0
