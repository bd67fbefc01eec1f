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


def softmax_input_range(rows: Array, full: Range) -> Range:
    """Return the range for the input of a softmax, from some of its rows, of shape (k, classes), and the full range.

    Values far below the largest of a row do not show in the output, and where the largest is far above the
    rest, clipping it changes nothing. So the range is the one with the least Kullback-Leibler divergence
    D(softmax(z) || softmax(Q(z))) in the mean over rows. The upper end leaves the second largest value of
    every row inside, so that no two classes are clipped to a tie.

    Example:
        >>> rows = np.array([[9.0, -20.0, 1.0], [2.0, 1.0, -1.0], [-30.0, 3.0, 0.5]])
        >>> low, high = softmax_input_range(rows, (-30.0, 9.0))
        >>> low > -30 and 3 <= high < 9
        True
    """
    values = rows.astype(np.float64)
    high = full[1]
    # An attention mask adds -1e9: values far below the largest of every row are excluded from the start.
    low = max(full[0], min(0.0, float(values.max(axis=1).min()) - _FAR))
    expected = _in_int8(softmax(values, axis=1))
    second = max(0.0, float(np.partition(values, -2, axis=1)[:, -2].max())) if values.shape[1] > 1 else high
    best = (np.inf, full)
    for lower in (_SHARES if low < 0 else np.ones(1)) * low:
        for upper in (_SHARES if high > 0 else np.ones(1)) * high:
            if upper >= min(second, high) and upper > lower:
                divergence = _divergence(values, expected, float(lower), float(upper))
                best = min(best, (divergence, (float(lower), float(upper))))
    return best[1]


def _divergence(values: Array, expected: Array, low: float, high: float) -> float:
    step = (high - low) / _STEPS
    quantized = np.clip(np.round(values / step) * step, low, high)
    return float(rel_entr(expected, _in_int8(softmax(quantized, axis=1))).sum(axis=1).mean())


def _in_int8(probabilities: Array) -> Array:
    """Return probabilities with the smallest that int8 resolves in place of smaller ones."""
    resolved = np.maximum(probabilities, _VISIBLE)
    resolved /= resolved.sum(axis=1, keepdims=True)
    return resolved
