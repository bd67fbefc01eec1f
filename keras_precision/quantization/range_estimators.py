"""The range in which a tensor is quantized, chosen from the values that it takes."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import rel_entr

from keras_precision.core.errors import InputError, nearest
from keras_precision.core.formats.affine_integers import Range
from keras_precision.quantization.histogram import Histogram

__all__ = ["AUTO", "FIXED", "METHODS", "check_method", "range_of"]

Array = npt.NDArray[Any]

AUTO = "auto"
"""Stands for the method that suits the net, of those that are tried."""

FIXED: MappingProxyType[str, Range] = MappingProxyType(
    {"SOFTMAX": (0.0, 255 / 256), "LOGISTIC": (0.0, 255 / 256), "TANH": (-1.0, 127 / 128)}
)
"""Kernels whose int8 outputs have one range, by TensorFlow Lite's quantization specification."""

_LEVELS = 256
_SHARES = np.linspace(0.2, 1.0, 81)  # of the full range, that a search may keep
_THRESHOLDS = 128  # that the entropy search looks at


def range_of(seen: Histogram, method: str, percentile: float = 99.99) -> Range:
    """Return the range for the values that a tensor takes.

    Args:
        seen: The values.
        method: One of ``METHODS``.
        percentile: For the method of that name: the share of values, in percent, that each end keeps.

    Returns:
        Lower and upper end; zero lies between them, as integer arithmetic needs it for padding.

    Example:
        >>> seen = Histogram()
        >>> seen.update(np.linspace(-1, 3, 1000, dtype=np.float32))
        >>> range_of(seen, "minmax")
        (-1.0, 3.0)
    """
    low, high = min(seen.minimum, 0.0), max(seen.maximum, 0.0)
    if seen.count == 0 or low == high:
        return 0.0, max(high, -low, 0.0)
    return METHODS[method](seen, low, high, percentile)


def check_method(method: object, percentile: float, *, auto: bool = False) -> None:
    """Raise unless a method, and the value that it takes, can be used.

    Args:
        method: What was asked for.
        percentile: What goes with the method of that name.
        auto: Whether ``"auto"``, which stands for one of the others, may be asked for.

    Raises:
        InputError: The method is unknown, or the percentile out of range.
    """
    known = (AUTO, *METHODS) if auto else tuple(METHODS)
    if method not in known:
        raise InputError(
            f"Expected a calibration method: {', '.join(known)}. Received: {method!r}. {nearest(str(method), known)}".rstrip()
        )
    if not 50 < percentile <= 100:
        raise InputError(f"Expected a percentile above 50 and up to 100. Received: {percentile}.")


def _minmax(seen: Histogram, low: float, high: float, percentile: float) -> Range:
    return low, high


def _percentile(seen: Histogram, low: float, high: float, percentile: float) -> Range:
    """The smallest range that loses at most ``100 - percentile`` percent of the values at each end."""
    cut = (1 - percentile / 100) * seen.count
    upper, lower = _kept(seen.above, cut), _kept(seen.below, cut)
    return max(low, -lower * seen.width), min(high, upper * seen.width)


def _kept(outward: Array, cut: float) -> int:
    """How many bins, from zero outward, remain when at most ``cut`` values are given up."""
    beyond = np.cumsum(outward[::-1])[::-1]  # values in this bin and farther out
    return int(np.count_nonzero(beyond > cut))


def _mse(seen: Histogram, low: float, high: float, percentile: float) -> Range:
    """The range with the least mean squared error: rounding noise inside, distance to the end outside.

    Rounding to a step s has the error s^2 / 12 in the mean (Widrow and Kollar, Quantization Noise,
    2008, section 4.1); what lies outside is off by its distance to the end. Exact zeros cost nothing.
    """
    centres, counts = seen.bins()
    lows = (_SHARES if low < 0 else np.zeros(1)) * low
    highs = (_SHARES if high > 0 else np.zeros(1)) * high
    below, lost_below = _beyond(centres, counts, lows, -1)
    above, lost_above = _beyond(centres, counts, highs, 1)
    inside = counts.sum() - below[:, None] - above[None, :]
    steps = (highs[None, :] - lows[:, None]) / (_LEVELS - 1)
    error = inside * steps**2 / 12 + lost_below[:, None] + lost_above[None, :]
    error = np.where(steps > 0, error, np.inf)
    row, column = np.unravel_index(int(np.argmin(error)), error.shape)
    return float(lows[row]), float(highs[column])


def _beyond(centres: Array, counts: Array, ends: Array, side: int) -> tuple[Array, Array]:
    """For each end: how many values lie beyond it, and the sum of their squared distances to it."""
    outward, weights = (centres, counts) if side > 0 else (-centres[::-1], counts[::-1])
    # Sums of 1, x and x^2 over what lies beyond each bin's lower neighbour, the farthest bin first.
    moments = [np.append(np.cumsum((weights * outward**power)[::-1])[::-1], 0.0) for power in (0, 1, 2)]
    reach = ends * side
    number, first, second = (each[np.searchsorted(outward, reach, side="right")] for each in moments)
    return number, np.maximum(second - 2 * reach * first + reach**2 * number, 0.0)


def _entropy(seen: Histogram, low: float, high: float, percentile: float) -> Range:
    """The symmetric cut-off whose quantized distribution diverges least from the full one.

    The method of S. Migacz, 8-bit Inference with TensorRT (GTC 2017): the values beyond the
    cut-off are added to the last bin, and the Kullback-Leibler divergence is taken to the same
    bins merged into the levels that an integer has on that side.
    """
    folded = (seen.above + seen.below).astype(np.float64)
    last = int(np.flatnonzero(folded)[-1]) + 1
    levels = _LEVELS // 2 if low < 0 < high else _LEVELS
    candidates = np.unique(np.linspace(min(levels, last), last, _THRESHOLDS).astype(int))
    divergences = [_divergence(folded, int(stop), levels) for stop in candidates]
    reach = float(candidates[int(np.argmin(divergences))]) * seen.width
    return max(low, -reach), min(high, reach)


def _divergence(counts: Array, stop: int, levels: int) -> float:
    """Kullback-Leibler divergence of the first ``stop`` bins from themselves in ``levels`` steps."""
    kept = counts[:stop].copy()
    level = (np.arange(stop) * levels) // stop
    filled = kept > 0
    share = np.bincount(level, kept, levels) / np.maximum(np.bincount(level, filled, levels), 1)
    coarse = np.where(filled, share[level], 0.0)
    kept[-1] += counts[stop:].sum()
    if coarse.sum() == 0:
        return float("inf")
    coarse = np.where((kept > 0) & (coarse == 0), 1e-9 * coarse.sum(), coarse)
    return float(rel_entr(kept / kept.sum(), coarse / coarse.sum()).sum())


METHODS: MappingProxyType[str, Callable[[Histogram, float, float, float], Range]] = MappingProxyType(
    {"minmax": _minmax, "percentile": _percentile, "mse": _mse, "entropy": _entropy}
)
"""How the range of an activation is chosen."""
