"""thinned: a series with fewer points that looks the same when it is drawn."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["thinned"]


def thinned(
    steps: Sequence[int], values: Sequence[float | None], most: int = 1500
) -> tuple[list[int], list[float | None]]:
    """Return at most about ``most`` points of a series: the lowest and the highest of each stretch, and both ends.

    A mean would hide what a report is read for: the one step that took a second.

    Args:
        steps: The steps, in order.
        values: The figure at each; None, NaN and infinity are gaps.
        most: The most points to keep.

    Returns:
        Steps and values, each value with five significant digits; a stretch of gaps stays one.

    Example:
        >>> thinned(range(1000), [0.0] * 500 + [9.0] + [0.0] * 499, most=4)
        ([0, 500, 501, 999], [0.0, 9.0, 0.0, 0.0])
    """
    if len(steps) != len(values):
        raise ValueError(f"Expected as many values as steps. Received: {len(values)} and {len(steps)}.")
    data = np.array([math.nan if value is None else value for value in values], np.float64)
    data[~np.isfinite(data)] = np.nan
    kept = range(len(data)) if len(data) <= most else _extremes(data, max(1, most // 2))
    return [int(steps[index]) for index in kept], [_short(float(data[index])) for index in kept]


def _extremes(data: npt.NDArray[np.float64], stretches: int) -> list[int]:
    bounds = np.linspace(0, len(data), stretches + 1).astype(int)
    lows, highs = np.where(np.isnan(data), np.inf, data), np.where(np.isnan(data), -np.inf, data)
    found = {0, len(data) - 1}
    for begin, end in itertools.pairwise(bounds.tolist()):
        found.add(begin + int(lows[begin:end].argmin()))
        found.add(begin + int(highs[begin:end].argmax()))
    return sorted(found)


def _short(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None
