"""Downsampling of a series for drawing."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["downsample"]


def downsample(
    steps: Sequence[int], values: Sequence[float | None], max_points: int = 1500
) -> tuple[list[int], list[float | None]]:
    """Return about ``max_points`` points: the minimum and maximum of every stretch, and both ends.

    Means would hide single slow steps. None, NaN and infinity are gaps, and values have five significant digits.

    Example:
        >>> downsample(range(1000), [0.0] * 500 + [9.0] + [0.0] * 499, max_points=4)
        ([0, 500, 501, 999], [0.0, 9.0, 0.0, 0.0])
    """
    if len(steps) != len(values):
        raise ValueError(
            f"Expected as many values as steps. Received: {len(values)} and {len(steps)}. Pass one value per step."
        )
    data = np.array([math.nan if value is None else value for value in values], np.float64)
    data[~np.isfinite(data)] = np.nan
    indices = range(len(data)) if len(data) <= max_points else _extremes(data, max(1, max_points // 2))
    return [int(steps[index]) for index in indices], [_rounded(float(data[index])) for index in indices]


def _extremes(data: npt.NDArray[np.float64], stretches: int) -> list[int]:
    bounds = np.linspace(0, len(data), stretches + 1).astype(int)
    lows, highs = np.where(np.isnan(data), np.inf, data), np.where(np.isnan(data), -np.inf, data)
    indices = {0, len(data) - 1}
    for begin, end in itertools.pairwise(bounds.tolist()):
        indices.add(begin + int(lows[begin:end].argmin()))
        indices.add(begin + int(highs[begin:end].argmax()))
    return sorted(indices)


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None
