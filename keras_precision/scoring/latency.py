"""Latency statistics of single calls, as rows of a result."""

import numpy as np
import numpy.typing as npt

from keras_precision.core.result import Measurement
from keras_precision.core.system.timing import spread

__all__ = ["latency_rows", "latency_source"]


def latency_rows(subject: str, times: npt.NDArray[np.float64], samples: int) -> tuple[Measurement, ...]:
    """Return the statistics of timed calls, in milliseconds, of so many samples a call.

    Example:
        >>> [row.value for row in latency_rows("model", np.array([1.0, 2.0, 3.0]), 4)][::3]
        [2.0, 2000.0]
    """
    figures = spread(times)
    return (
        Measurement(subject, "latency_ms", figures.median),
        Measurement(subject, "latency_p95_ms", figures.p95),
        Measurement(subject, "latency_samples", figures.count),
        Measurement(subject, "samples_per_second", samples * 1e3 / figures.median),
    )


def latency_source(samples: int, warmup: int) -> str:
    """Return how latencies were measured, as a phrase for ``Environment.sources``."""
    return f"one call after the other, of {samples} sample(s) each; {warmup} warm-up calls left out"
