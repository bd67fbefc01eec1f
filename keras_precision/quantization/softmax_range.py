"""The range of what a softmax reads: the one that changes its answers least."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import rel_entr, softmax

from keras_precision.core.formats.affine_integers import Range

__all__ = ["range_before_softmax"]

Array = npt.NDArray[Any]

_SHARES = np.linspace(0.15, 1.0, 18)  # of the full range, that each end may keep
_STEPS = 255
_FAR = 8.0  # exp(-8) is less than half of what an int8 softmax can show
_VISIBLE = 1 / 512  # half a step of a softmax in int8: a probability below it is answered as zero


def range_before_softmax(rows: Array, full: Range) -> Range:
    """Return the range in which a softmax's input is to be quantized.

    Its values are not worth the same. What lies far below a row's largest is invisible in the
    answer, and rows whose largest is far above the rest answer the same when it is cut off. So the
    range is the one with the least Kullback-Leibler divergence D(softmax(z) || softmax(Q(z))) in
    the mean over rows. The upper end leaves every row's second largest value inside, so that no two
    classes are cut off to a tie.

    Args:
        rows: Some of the rows that it reads, of shape (k, classes).
        full: The range of all values.

    Returns:
        Lower and upper end; zero lies between them.

    Example:
        >>> rows = np.array([[9.0, -20.0, 1.0], [2.0, 1.0, -1.0], [-30.0, 3.0, 0.5]])
        >>> low, high = range_before_softmax(rows, (-30.0, 9.0))
        >>> low > -30 and 3 <= high < 9
        True
    """
    values = rows.astype(np.float64)
    high = full[1]
    # A mask puts -1e9 where nothing is to be seen: what is far below every row's largest is given up at once.
    low = max(full[0], min(0.0, float(values.max(axis=1).min()) - _FAR))
    wanted = _visible(softmax(values, axis=1))
    second = max(0.0, float(np.partition(values, -2, axis=1)[:, -2].max())) if values.shape[1] > 1 else high
    best = (np.inf, full)
    for lower in (_SHARES if low < 0 else np.ones(1)) * low:
        for upper in (_SHARES if high > 0 else np.ones(1)) * high:
            if upper >= min(second, high) and upper > lower:
                found = _divergence(values, wanted, float(lower), float(upper))
                best = min(best, (found, (float(lower), float(upper))))
    return best[1]


def _divergence(values: Array, wanted: Array, low: float, high: float) -> float:
    step = (high - low) / _STEPS
    held = np.clip(np.round(values / step) * step, low, high)
    return float(rel_entr(wanted, _visible(softmax(held, axis=1))).sum(axis=1).mean())


def _visible(probabilities: Array) -> Array:
    """Probabilities as an answer in int8 can show them."""
    shown = np.maximum(probabilities, _VISIBLE)
    shown /= shown.sum(axis=1, keepdims=True)
    return shown
