"""Times of calls, and their percentiles."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import DataError, InputError

__all__ = ["Spread", "spread", "time_calls"]


@dataclass(frozen=True)
class Spread:
    """Median and percentiles of a set of figures.

    Attributes:
        count: The number of figures.
        median: Their median.
        p5: Their 5th percentile (linear interpolation between order statistics).
        p95: Their 95th percentile.
    """

    count: int
    median: float
    p5: float
    p95: float


def spread(values: Iterable[float]) -> Spread:
    """Return median and percentiles of at least one value.

    Example:
        >>> spread([1.0, 2.0, 3.0]).median
        2.0
    """
    array = np.asarray(list(values), dtype=np.float64)
    if array.size == 0:
        raise DataError("Expected at least one figure. Received: none.")
    low, middle, high = np.percentile(array, (5, 50, 95))
    return Spread(array.size, float(middle), float(low), float(high))


def time_calls(
    call: Callable[[int], object], *, warmup: int, min_calls: int, min_seconds: float
) -> npt.NDArray[np.float64]:
    """Return the times of calls in ms after a warm-up; ``call`` gets its number, and must return when its work is done."""
    if warmup < 0 or min_calls < 1 or min_seconds < 0:
        raise InputError(
            f"Expected warmup >= 0, min_calls >= 1 and min_seconds >= 0. Received: {warmup}, {min_calls} and {min_seconds}."
        )
    for number in range(warmup):
        call(number)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < min_calls or time.perf_counter() - began < min_seconds:
        start = time.perf_counter_ns()
        call(len(times))
        times.append((time.perf_counter_ns() - start) / 1e6)
    return np.asarray(times)
