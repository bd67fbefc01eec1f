"""Number formats as values: what they can represent, and how an array fits them.

::

    FLOAT32  TF32  BFLOAT16  FLOAT16  FLOAT8_E4M3FN  FLOAT8_E5M2  INT8  INT4

A number of a float format is ``(-1)^s * 1.f * 2^(e - bias)``, or subnormal below the smallest normal one
(IEEE 754-2019, section 3.4). An integer stands for ``x_hat = s * (q - z)``, with a scale s and a zero point z
(Jacob et al., Quantization and Training of Neural Networks, 2018, equation 1).
"""

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import DataError, InputError
from keras_precision.core.formats.affine_integers import Integers, integers_for
from keras_precision.core.formats.number_format import (
    BFLOAT16,
    FLOAT8_E4M3FN,
    FLOAT8_E5M2,
    FLOAT16,
    FLOAT32,
    FORMATS,
    INT4,
    INT8,
    TF32,
    Format,
    named,
)

__all__ = [
    "BFLOAT16",
    "FLOAT8_E4M3FN",
    "FLOAT8_E5M2",
    "FLOAT16",
    "FLOAT32",
    "FORMATS",
    "INT4",
    "INT8",
    "TF32",
    "Fit",
    "Format",
    "Integers",
    "fit",
    "named",
    "rounded",
]

Array = npt.NDArray[Any]

_TYPES: dict[str, Any] = {
    "float32": np.float32,
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}
_NARROW = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4")


@dataclass(frozen=True, eq=False)
class Fit:
    """How well a format represents an array. Shares are of the finite values of the array, between 0 and 1.

    Attributes:
        format: The format.
        count: Values in the array.
        non_finite: Share of all values that are NaN or infinite in the array; the other figures leave them out.
        overflow: Share too large for the format: floats become infinite or NaN, integers are clipped.
        underflow: Share that is not 0, and becomes 0.
        subnormal: Share that becomes subnormal, with fewer bits (and 0 on hardware that flushes them).
        snr_db: Signal-to-noise ratio, ``10 log10(sum x^2 / sum (x - x_hat)^2)``; infinite if
            nothing is lost, minus infinity if everything is.
        max_error: The largest ``|x - x_hat|``.
        mean_error: The mean of ``|x - x_hat|``. Floats that overflow are left out of the errors and of the ratio.
        integers: Scale and zero point; None for floats.
    """

    format: Format
    count: int
    non_finite: float
    overflow: float
    underflow: float
    subnormal: float
    snr_db: float
    max_error: float
    mean_error: float
    integers: Integers | None = None

    @property
    def scale(self) -> Any:
        """The scale of integers: a number, or an array with one per channel; None for floats."""
        return None if self.integers is None else self.integers.scale[()]

    @property
    def zero_point(self) -> Any:
        """The zero point of integers, in the same form; None for floats."""
        return None if self.integers is None else self.integers.zero_point[()]


def rounded(array: npt.ArrayLike, format: str | Format) -> Array:  # noqa: A002 - the name that users expect
    """Return an array rounded to a float format: to nearest, ties to even.

    Args:
        array: Numbers of any shape.
        format: A float format, or its name.

    Returns:
        float32 of the same shape; infinite (NaN in float8_e4m3fn) where it overflows.

    Raises:
        DataError: These are not numbers.
        InputError: It is an integer format, which needs a scale: ``fit`` chooses one.

    Example:
        >>> rounded([1.001, 70000.0], "float16").tolist()
        [1.0009765625, inf]
    """
    chosen = named(format)
    if chosen.is_integer:
        raise InputError(f"Expected a float format. Received: '{chosen.name}'. kp.formats.fit finds its scale.")
    return _round(_numbers(array), chosen)


def fit(
    array: npt.ArrayLike,
    format: str | Format,  # noqa: A002 - the name that users expect
    *,
    axis: int | None = None,
    symmetric: bool = True,
) -> Fit:
    """Return how well a format represents an array: overflow, underflow and rounding errors.

    Args:
        array: Numbers of any shape: weights, activations, gradients.
        format: A format, or its name.
        axis: For integers: the axis of the channels, for one scale per channel; None for one scale for all.
        symmetric: For integers: whether the zero point is 0.

    Returns:
        The fit.

    Raises:
        UnknownPrecisionError: There is no such format.
        DataError: The array is empty, has no finite number, or no numbers at all.
        InputError: ``axis`` is no axis of the array, or was passed for a float format.

    Example:
        >>> float16 = fit([1e-9, 1e-6, 1.0, 1e5], "float16")
        >>> float16.underflow, float16.subnormal, float16.overflow
        (0.25, 0.25, 0.25)
        >>> float(fit([-1.27, 0.5, 1.27], "int8").scale)
        0.01
    """
    chosen, values = named(format), _numbers(array)
    finite = np.isfinite(values)
    if not finite.any():
        what = f"{values.size} values of which none is finite" if values.size else "an empty array"
        raise DataError(f"Expected at least one finite number. Received: {what}.")
    if axis is not None and not chosen.is_integer:
        raise InputError(f"Expected axis for an integer format alone. Received: axis={axis} for '{chosen.name}'.")
    if not chosen.is_integer:
        represented = _round(values[finite], chosen).astype(np.float64)
        return _fit_of(chosen, values.size, values[finite], represented, ~np.isfinite(represented))
    filled = np.where(finite, values, 0.0)
    integers = integers_for(filled, chosen, axis=axis, symmetric=symmetric)
    represented, clipped = integers.real(integers.quantized(filled)), integers.clipped(filled)
    return _fit_of(chosen, values.size, values[finite], represented[finite], clipped[finite], integers)


def _numbers(array: npt.ArrayLike) -> Array:
    """An array as float64, which represents every number of every format here exactly."""
    try:
        values = np.asarray(array)
        narrow = values.dtype.kind == "V" and values.dtype.name in _NARROW  # types of ml_dtypes
        if values.dtype.kind not in "fiub" and not narrow:
            raise TypeError(f"its type is {values.dtype}")
        return values.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # PyTorch raises the last for tensors with a gradient
        raise DataError(
            f"Expected an array of real numbers. Received: {type(array).__name__} ({error}). "
            "Pass what np.asarray can read, such as keras.ops.convert_to_numpy(tensor)."
        ) from error


def _round(values: Array, chosen: Format) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(np.float32)
        if chosen.name != "tf32":
            return narrow.astype(_TYPES[chosen.name]).astype(np.float32)
        bits = narrow.view(np.uint32)
        dropped = 13  # bits of the mantissa; half a step is added, a little less where that would make an even one odd
        even = (bits >> np.uint32(dropped)) & np.uint32(1)
        up = bits + np.uint32((1 << (dropped - 1)) - 1) + even
        tf32 = (up & ~np.uint32((1 << dropped) - 1)).view(np.float32)
        return np.where(np.isfinite(narrow), tf32, narrow)


def _fit_of(
    chosen: Format, count: int, values: Array, represented: Array, overflow: Array, integers: Integers | None = None
) -> Fit:
    size = np.abs(represented)
    finite = np.isfinite(represented)
    errors = np.abs(values - np.where(finite, represented, 0.0))[finite]
    signal, noise = float(np.square(values[finite]).sum()), float(np.square(errors).sum())
    return Fit(
        format=chosen,
        count=count,
        non_finite=1 - values.size / count,
        overflow=float(overflow.mean()),
        underflow=float(((values != 0) & (represented == 0)).mean()),
        subnormal=0.0 if integers else float(((size > 0) & (size < chosen.smallest_normal)).mean()),
        snr_db=_decibels(signal, noise) if errors.size else -math.inf,
        max_error=float(errors.max(initial=0.0)),
        mean_error=float(errors.mean()) if errors.size else 0.0,
        integers=integers,
    )


def _decibels(signal: float, noise: float) -> float:
    return 10 * math.log10(signal / noise) if signal and noise else math.inf if not noise else -math.inf
