"""Integers: affine quantization, and the scale and zero point with the least error."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import InputError
from keras_precision.core.formats.number_format import Format

__all__ = ["Integers", "Range", "integers_for"]

Array = npt.NDArray[Any]

_SHARES = np.linspace(0.2, 1.0, 81)  # of the full range, that are tried
_MOST_SEARCHED = 1 << 18  # values on which they are tried; larger arrays are subsampled evenly


@dataclass(frozen=True)
class Integers:
    """Affine quantization: an integer q stands for ``x_hat = scale * (q - zero_point)``.

    Attributes:
        format: The integer format.
        scale: Positive, float64; a scalar array, or of shape (channels,).
        zero_point: Whole numbers of the same shape; 0 where symmetric.
        axis: The axis of the channels; None for one scale for all.
        symmetric: Whether the zero point is 0, and the lowest integer is unused.
    """

    format: Format
    scale: Array
    zero_point: Array
    axis: int | None = None
    symmetric: bool = True

    def quantized(self, array: Array) -> Array:
        """Return the integers that stand for an array.

        Args:
            array: Finite numbers of any shape.

        Returns:
            int8, of the same shape (4-bit integers, too).
        """
        return np.clip(self._unbounded(array), self._lowest, self.format.largest).astype(np.int8)

    def clipped(self, array: Array) -> Array:
        """Return which numbers of an array are outside the range of the integers.

        Args:
            array: Finite numbers of any shape.

        Returns:
            Truth values of the same shape.
        """
        unbounded = self._unbounded(array)
        beyond: Array = (unbounded < self._lowest) | (unbounded > self.format.largest)
        return beyond

    def real(self, integers: Array) -> Array:
        """Return the real numbers that integers stand for.

        Args:
            integers: Of any shape.

        Returns:
            ``scale * (q - zero_point)``, float64.
        """
        scale, zero_point = self._spread(integers.ndim)
        result: Array = scale * (integers.astype(np.float64) - zero_point)
        return result

    @property
    def _lowest(self) -> float:
        return -self.format.largest if self.symmetric else self.format.lowest

    def _unbounded(self, array: Array) -> Array:
        scale, zero_point = self._spread(array.ndim)
        steps: Array = np.rint(array / scale) + zero_point
        return steps

    def _spread(self, dimensions: int) -> tuple[Array, Array]:
        if self.axis is None:
            return self.scale, self.zero_point
        shape = [1] * dimensions
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero_point.reshape(shape)


def integers_for(values: Array, chosen: Format, *, axis: int | None = None, symmetric: bool = True) -> Integers:
    """Return the scale and zero point, one or one per channel, with the least mean squared error on the values.

    The range from the smallest to the largest value, with 0 in it, is shrunk in 81 steps down to a fifth.

    Example:
        >>> from keras_precision.core.formats.number_format import INT8
        >>> integers = integers_for(np.array([0.0, 2.55]), INT8, symmetric=False)
        >>> round(float(integers.scale), 4), int(integers.zero_point)
        (0.01, -128)
    """
    if axis is not None and not -values.ndim <= axis < values.ndim:
        raise InputError(f"Expected an axis of an array of shape {values.shape}. Received: {axis}.")
    rows = values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    scale, zero_point = _search_scale(rows, chosen, symmetric)
    shape: tuple[int, ...] = () if axis is None else (-1,)
    return Integers(chosen, scale.reshape(shape), zero_point.reshape(shape), axis, symmetric)


def _search_scale(rows: Array, chosen: Format, symmetric: bool) -> tuple[Array, Array]:
    """Scale and zero point per row; of large arrays, only every n-th value is used."""
    low, high = rows.min(axis=1, initial=0.0), rows.max(axis=1, initial=0.0)
    if symmetric:
        high = np.maximum(high, -low)
        low = -high
    sample = rows[:, :: 1 + rows.size // _MOST_SEARCHED]
    scale, zero_point, error = _candidate(sample, chosen, low, high, symmetric)
    for share in _SHARES[-2::-1]:
        candidate = _candidate(sample, chosen, share * low, share * high, symmetric)
        better = candidate[2] < error
        scale, zero_point, error = (
            np.where(better, new, old) for new, old in zip(candidate, (scale, zero_point, error), strict=True)
        )
    return scale, zero_point


def _candidate(rows: Array, chosen: Format, low: Array, high: Array, symmetric: bool) -> tuple[Array, Array, Array]:
    """Scale and zero point that spread the integers over a range, and the squared error per row."""
    lowest = -chosen.largest if symmetric else chosen.lowest
    scale = np.where(high > low, (high - low) / (chosen.largest - lowest), 1.0)
    zero_point = np.zeros_like(scale) if symmetric else np.clip(np.rint(lowest - low / scale), lowest, chosen.largest)
    integers = Integers(chosen, scale, zero_point, 0, symmetric)
    return scale, zero_point, np.square(rows - integers.real(integers.quantized(rows))).sum(axis=1)


Range = tuple[float, float]
"""The smallest and the largest real number that a quantized tensor represents; zero is between them."""
