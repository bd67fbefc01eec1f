"""The range for the input of a softmax that changes its output least."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import rel_entr, softmax

from keras_precision.core.formats.affine_integers import Range

__all__ = ["softmax_input_range"]

Array = npt.NDArray[Any]

_SHARES = np.linspace(0.15, 1.0, 18)  # candidates for an end, as a share of the full range
_STEPS = 255
_FAR = 8.0  # exp(-8) is less than half a step of an int8 softmax
_VISIBLE = 1 / 512  # half a step of a softmax in int8: a smaller probability becomes zero
_EXTREMES = 16  # of the rows seen, from which those beyond them are estimated
_UNSEEN = 128  # rows that stand for those beyond, at each end


def softmax_input_range(rows: Array, full: Range) -> Range:
    """Return the range for the input of a softmax, from some of its rows, of shape (k, classes), and the full range.

    Values far below the largest of a row do not show in the output, and where the largest is far above the
    rest, clipping it changes nothing. So the range is the one with the least Kullback-Leibler divergence
    D(softmax(z) || softmax(Q(z))) in the mean over rows: those seen, and those to be expected beyond them, which few rows
    do not show. The upper end leaves the second largest value of every row inside, so that no two classes are clipped to
    a tie.

    Example:
        >>> rows = np.random.default_rng(0).normal(-20, 6, size=(400, 3))
        >>> rows[:, 0] = np.linspace(5, 40, 400)
        >>> low, high = softmax_input_range(rows, (-43.0, 40.0))
        >>> low > -10 and high < 25
        True
    """
    count, classes = rows.shape
    if min(count, classes) < 2:
        return full
    seen = rows.astype(np.float64)
    second = np.partition(seen, -2, axis=1)[:, -2]
    unseen = [_beyond(seen, second), -_beyond(-seen, -seen.max(axis=1))]
    values = np.concatenate([seen, *unseen])
    # As likely as any row seen is the next one to lie beyond all of them, at either end.
    weights = np.repeat([1 / count, 1 / count / _UNSEEN], [count, 2 * _UNSEEN])
    high = full[1]
    # An attention mask adds -1e9: values far below the largest of every row are excluded from the start.
    low = max(full[0], min(0.0, float(values.max(axis=1).min()) - _FAR))
    expected = _in_int8(softmax(values, axis=1))
    least = min(max(0.0, float(second.max())), high)
    best = (np.inf, full)
    for lower in (_SHARES if low < 0 else np.ones(1)) * low:
        for upper in (_SHARES if high > 0 else np.ones(1)) * high:
            if upper >= least and upper > lower:
                divergence = float(weights @ _divergences(values, expected, float(lower), float(upper)))
                best = min(best, (divergence, (float(lower), float(upper))))
    return best[1]


def _beyond(rows: Array, extremes: Array) -> Array:
    """Return rows whose extreme value lies beyond all that were seen: the outermost rows, moved outward.

    The excess of an exponential tail, beyond any threshold, is exponential (Pickands, Statistical Inference Using Extreme
    Order Statistics, 1975); with the uncertainty of a mean that is estimated from k values, it is a Lomax distribution of
    shape k, of which equally likely quantiles are taken.
    """
    k = min(_EXTREMES, len(rows) // 2)
    order = np.argsort(extremes)[::-1]
    outermost, threshold = extremes[order[:k]], extremes[order[k]]
    shares = (np.arange(_UNSEEN) + 0.5) / _UNSEEN
    excess = float(np.sum(outermost - threshold)) * (shares ** (-1 / k) - 1)
    moved = np.resize(order[:k], _UNSEEN)
    return np.asarray(rows[moved] + (outermost[0] + excess - extremes[moved])[:, np.newaxis])


def _divergences(values: Array, expected: Array, low: float, high: float) -> Array:
    step = (high - low) / _STEPS
    quantized = np.clip(np.round(values / step) * step, low, high)
    return np.asarray(rel_entr(expected, _in_int8(softmax(quantized, axis=1))).sum(axis=1))


def _in_int8(probabilities: Array) -> Array:
    """Return probabilities with the smallest that int8 resolves in place of smaller ones."""
    resolved = np.maximum(probabilities, _VISIBLE)
    resolved /= resolved.sum(axis=1, keepdims=True)
    return resolved
