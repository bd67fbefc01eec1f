"""What the times of single calls say, as rows of a result."""

import numpy as np
import numpy.typing as npt

from keras_precision.core.result import Measurement
from keras_precision.core.system.timing import spread

__all__ = ["latency_rows", "latency_source"]


def latency_rows(subject: str, times: npt.NDArray[np.float64], samples: int) -> tuple[Measurement, ...]:
    """Return what a set of timed calls says.

    Args:
        subject: What was called.
        times: Milliseconds of each call.
        samples: Samples in a call.

    Returns:
        ``latency_ms``, ``latency_p95_ms``, ``latency_samples`` and ``samples_per_second``.

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
    """Return how these figures were got, in words.

    Args:
        samples: Samples in a call.
        warmup: Calls that were left out.

    Returns:
        A phrase for ``Environment.sources``.
    """
    return f"one call after the other, of {samples} sample(s) each; {warmup} warm-up calls left out"
