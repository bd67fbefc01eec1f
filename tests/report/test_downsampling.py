"""downsample: fewer points, the same picture."""

import math

import numpy as np
import pytest

from keras_precision.report.downsampling import downsample


def test_a_short_series_is_unchanged() -> None:
    """Nothing is dropped where there is no need, and what is not finite is a gap."""
    assert downsample([1, 2, 5], [0.5, math.inf, None], max_points=3) == ([1, 2, 5], [0.5, None, None])


def test_a_long_series_keeps_its_extremes(rng: np.random.Generator) -> None:
    """The highest and the lowest point and both ends survive; the order, and the limit, hold."""
    values = rng.normal(size=100_000)
    values[[123, 45_678]] = 1e3, -1e3
    steps, points = downsample(range(100_000), values.tolist(), max_points=1000)
    assert len(steps) <= 1002
    assert steps == sorted(set(steps))
    assert {0, 123, 45_678, 99_999} <= set(steps)
    assert (max(points), min(points)) == (1e3, -1e3)


def test_a_stretch_of_gaps_stays_a_gap() -> None:
    """A run that diverged is seen to end."""
    steps, points = downsample(range(1000), [1.0] * 500 + [math.nan] * 500, max_points=100)
    assert all((value is None) == (step >= 500) for step, value in zip(steps, points, strict=True))


def test_values_have_five_digits() -> None:
    """The page does not carry digits that nobody sees."""
    assert downsample([0], [1 / 3])[1] == [0.33333]


def test_lengths_must_fit() -> None:
    """Steps and values belong together."""
    with pytest.raises(ValueError, match=r"Expected as many values as steps\. Received: 1 and 2\."):
        downsample([1, 2], [1.0])
