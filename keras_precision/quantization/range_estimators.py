"""Estimators of the range in which a tensor is quantized, from the histogram of its values."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import kl_div

from keras_precision.core.errors import InputError, nearest
from keras_precision.core.formats.affine_integers import Range
from keras_precision.quantization.histogram import Histogram

__all__ = ["AUTO", "FIXED_RANGES", "METHODS", "check_method", "estimate_range"]

Array = npt.NDArray[Any]

AUTO = "auto"
"""The method whose file is closest to the float model."""

FIXED_RANGES: MappingProxyType[str, Range] = MappingProxyType(
    {"SOFTMAX": (0.0, 255 / 256), "LOGISTIC": (0.0, 255 / 256), "TANH": (-1.0, 127 / 128)}
)
"""Kernels whose int8 outputs have one fixed range:
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec."""

_LEVELS = 256
_SHARES = np.linspace(0.2, 1.0, 81)  # candidates for an end, as a share of the full range
_THRESHOLDS = 128  # candidates of the entropy search


def estimate_range(histogram: Histogram, method: str, percentile: float = 99.99) -> Range:
    """Return the range for the values of a tensor; it contains zero, which integer arithmetic needs for padding.

    Example:
        >>> histogram = Histogram()
        >>> histogram.update(np.linspace(-1, 3, 1000, dtype=np.float32))
        >>> estimate_range(histogram, "minmax")
        (-1.0, 3.0)
    """
    low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    if histogram.count == 0 or low == high:
        return 0.0, max(high, -low, 0.0)
    return METHODS[method](histogram, low, high, percentile)


def check_method(method: object, percentile: float, *, auto: bool = False) -> None:
    """Raise InputError unless the method, ``"auto"`` included where ``auto``, and the percentile are valid."""
    known = (AUTO, *METHODS) if auto else tuple(METHODS)
    if method not in known:
        raise InputError(
            f"Expected a calibration method: {', '.join(known)}. Received: {method!r}. {nearest(str(method), known)}".rstrip()
        )
    if not 50 < percentile <= 100:
        raise InputError(f"Expected a percentile above 50 and up to 100. Received: {percentile}.")


def _minmax(histogram: Histogram, low: float, high: float, percentile: float) -> Range:
    return low, high


def _percentile(histogram: Histogram, low: float, high: float, percentile: float) -> Range:
    """Return the smallest range that clips at most ``100 - percentile`` percent of the values at either end."""
    limit = (1 - percentile / 100) * histogram.count
    upper, lower = _bins_within(histogram.above, limit), _bins_within(histogram.below, limit)
    return max(low, -lower * histogram.width), min(high, upper * histogram.width)


def _bins_within(outward: Array, limit: float) -> int:
    """Return the number of bins, from zero outward, that remain when at most ``limit`` values are clipped."""
    beyond = np.cumsum(outward[::-1])[::-1]  # values in this bin and farther out
    return int(np.count_nonzero(beyond > limit))


def _mse(histogram: Histogram, low: float, high: float, percentile: float) -> Range:
    """Return the range with the least mean squared error: rounding noise inside, distance to the end outside.

    Rounding to a step s has the error s^2 / 12 in the mean (Widrow and Kollar, Quantization Noise,
    2008, section 4.1); a clipped value has the error of its distance to the end. Exact zeros have none.
    """
    centres, counts = histogram.bins()
    lows = (_SHARES if low < 0 else np.zeros(1)) * low
    highs = (_SHARES if high > 0 else np.zeros(1)) * high
    below, clipped_below = _beyond(centres, counts, lows, -1)
    above, clipped_above = _beyond(centres, counts, highs, 1)
    inside = counts.sum() - below[:, None] - above[None, :]
    steps = (highs[None, :] - lows[:, None]) / (_LEVELS - 1)
    error = inside * steps**2 / 12 + clipped_below[:, None] + clipped_above[None, :]
    error = np.where(steps > 0, error, np.inf)
    row, column = np.unravel_index(int(np.argmin(error)), error.shape)
    return float(lows[row]), float(highs[column])


def _beyond(centres: Array, counts: Array, ends: Array, side: int) -> tuple[Array, Array]:
    """Return, per candidate end, the number of values beyond it and the sum of their squared distances to it."""
    outward, weights = (centres, counts) if side > 0 else (-centres[::-1], counts[::-1])
    # Sums of 1, x and x^2 over all values from a bin outward.
    moments = [np.append(np.cumsum((weights * outward**power)[::-1])[::-1], 0.0) for power in (0, 1, 2)]
    limits = ends * side
    indices = np.searchsorted(outward, limits, side="right")
    number, first, second = (moment[indices] for moment in moments)
    return number, np.maximum(second - 2 * limits * first + limits**2 * number, 0.0)


def _entropy(histogram: Histogram, low: float, high: float, percentile: float) -> Range:
    """Return the symmetric cut-off whose quantized distribution diverges least from the full one.

    The method of S. Migacz, 8-bit Inference with TensorRT (GTC 2017): the values beyond the
    cut-off are added to the last bin, and the Kullback-Leibler divergence is taken to the same
    bins merged into the levels that an integer has on that side.
    """
    folded = (histogram.above + histogram.below).astype(np.float64)
    last = int(np.flatnonzero(folded)[-1]) + 1
    levels = _LEVELS // 2 if low < 0 < high else _LEVELS
    candidates = np.unique(np.linspace(min(levels, last), last, _THRESHOLDS).astype(int))
    divergences = [_divergence(folded, int(stop), levels) for stop in candidates]
    cutoff = float(candidates[int(np.argmin(divergences))]) * histogram.width
    return max(low, -cutoff), min(high, cutoff)


def _divergence(counts: Array, stop: int, levels: int) -> float:
    """Return the divergence of the first ``stop`` bins, with all values beyond, from the same bins in ``levels`` steps.

    Both are shares of all values. The coarse ones add up to less than 1 where values lie beyond the cut-off, which the
    generalized divergence, the sum of p log(p / q) - p + q, counts: of shares that add up to 1, a last bin with most of
    the values inside would hide any number of values beyond.
    """
    exact = counts[:stop].copy()
    level = (np.arange(stop) * levels) // stop
    filled = exact > 0
    share = np.bincount(level, exact, levels) / np.maximum(np.bincount(level, filled, levels), 1)
    coarse = np.where(filled, share[level], 0.0)
    exact[-1] += counts[stop:].sum()
    if coarse.sum() == 0:
        return float("inf")
    coarse = np.where((exact > 0) & (coarse == 0), 1e-9 * coarse.sum(), coarse)
    return float(kl_div(exact / exact.sum(), coarse / exact.sum()).sum())


METHODS: MappingProxyType[str, Callable[[Histogram, float, float, float], Range]] = MappingProxyType(
    {"minmax": _minmax, "percentile": _percentile, "mse": _mse, "entropy": _entropy}
)
"""Name to estimator."""
