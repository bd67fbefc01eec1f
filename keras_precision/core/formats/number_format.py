"""Format: a number format, with its limits from NumPy and ml_dtypes."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

from keras_precision.core.errors import UnknownPrecisionError, nearest
from keras_precision.core.formats.processor_flags import PROCESSOR_FLAGS

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
    "Format",
    "named",
]


@dataclass(frozen=True)
class Format:
    """A number format.

    Attributes:
        name: Its name in NumPy, JAX and PyTorch; ``"tf32"`` has no dtype of its own.
        bits: Bits of a number in memory.
        exponent_bits: Bits of the exponent; 0 for integers.
        mantissa_bits: Bits of the fraction (the leading 1 is not stored); for integers, all but the sign.
        largest: The largest finite number.
        lowest: The most negative one.
        smallest_normal: The smallest positive number with full precision; 1 for integers.
        smallest_subnormal: The smallest positive number; 1 for integers.
        epsilon: The distance from 1 to the next number: the relative spacing of normal numbers is at most that.
        cpu_flags: Flags (Linux names) of processors that multiply in it; one of them is enough.
        compute_capability: The first NVIDIA compute capability whose tensor cores multiply in it; None for none.
        tpu: Whether TPUs multiply in it.
        origin: The specification that defines it.

    Example:
        >>> FLOAT16.largest, FLOAT16.smallest_subnormal
        (65504.0, 5.960464477539063e-08)
    """

    name: str
    bits: int
    exponent_bits: int
    mantissa_bits: int
    largest: float
    lowest: float
    smallest_normal: float
    smallest_subnormal: float
    epsilon: float
    cpu_flags: tuple[str, ...]
    compute_capability: tuple[int, int] | None
    tpu: bool
    origin: str

    @property
    def is_integer(self) -> bool:
        """Whether its numbers are integers, which need a scale."""
        return self.exponent_bits == 0

    @property
    def unit_roundoff(self) -> float:
        """The largest relative error of rounding a number in the normal range: half of ``epsilon``."""
        return self.epsilon / 2


def _float(name: str, bits: int, exponent_bits: int, mantissa_bits: int, limits: Any, **hardware: Any) -> Format:
    largest, smallest = float(limits.max), float(limits.smallest_normal)
    epsilon = 2.0**-mantissa_bits
    return Format(
        name, bits, exponent_bits, mantissa_bits, largest, -largest, smallest, smallest * epsilon, epsilon, **hardware
    )


def _integer(name: str, limits: Any, **hardware: Any) -> Format:
    bits = int(limits.bits)
    return Format(name, bits, 0, bits - 1, float(limits.max), float(limits.min), 1.0, 1.0, 1.0, **hardware)


def _limits(kind: Any) -> dict[str, Any]:
    limits = ml_dtypes.finfo(kind)  # type: ignore[no-untyped-call]
    return {
        "bits": int(limits.bits),
        "exponent_bits": int(limits.nexp),
        "mantissa_bits": int(limits.nmant),
        "limits": limits,
    }


class _Tf32Limits:
    """TF32 has the exponent of float32 and the mantissa of float16; no library has a dtype for it."""

    smallest_normal = float(np.finfo(np.float32).smallest_normal)
    max = (2 - 2.0**-10) * 2.0**127


FLOAT32 = _float(
    "float32", cpu_flags=(), compute_capability=None, tpu=False, origin="IEEE 754-2019 binary32", **_limits(np.float32)
)
TF32 = _float(
    "tf32",
    bits=32,
    exponent_bits=8,
    mantissa_bits=10,
    limits=_Tf32Limits,
    cpu_flags=(),
    compute_capability=(8, 0),
    tpu=False,
    origin="NVIDIA A100 Tensor Core GPU Architecture, 2020: only inputs of products, stored as float32",
)
BFLOAT16 = _float(
    "bfloat16",
    cpu_flags=PROCESSOR_FLAGS["bfloat16"],
    compute_capability=(8, 0),
    tpu=True,
    origin="Intel, BFLOAT16 Hardware Numerics Definition, 2018",
    **_limits(ml_dtypes.bfloat16),
)
FLOAT16 = _float(
    "float16",
    cpu_flags=PROCESSOR_FLAGS["float16"],
    compute_capability=(7, 0),
    tpu=False,
    origin="IEEE 754-2019 binary16",
    **_limits(np.float16),
)
FLOAT8_E4M3FN = _float(
    "float8_e4m3fn",
    cpu_flags=(),
    compute_capability=(8, 9),
    tpu=False,
    origin="OCP 8-bit Floating Point Specification 1.0: no infinities",
    **_limits(ml_dtypes.float8_e4m3fn),
)
FLOAT8_E5M2 = _float(
    "float8_e5m2",
    cpu_flags=(),
    compute_capability=(8, 9),
    tpu=False,
    origin="OCP 8-bit Floating Point Specification 1.0",
    **_limits(ml_dtypes.float8_e5m2),
)
INT8 = _integer(
    "int8",
    np.iinfo(np.int8),
    cpu_flags=PROCESSOR_FLAGS["int8"],
    compute_capability=(7, 2),
    tpu=True,
    origin="two's complement",
)
INT4 = _integer(
    "int4",
    ml_dtypes.iinfo(ml_dtypes.int4),  # type: ignore[no-untyped-call]
    cpu_flags=(),
    compute_capability=None,
    tpu=False,
    origin="two's complement; weights are unpacked, and multiplied in a wider format",
)

FORMATS: MappingProxyType[str, Format] = MappingProxyType(
    {value.name: value for value in (FLOAT32, TF32, BFLOAT16, FLOAT16, FLOAT8_E4M3FN, FLOAT8_E5M2, INT8, INT4)}
)
"""Name to format, from wide to narrow."""


def named(name: str | Format) -> Format:
    """Return the format with a name.

    Args:
        name: A key of ``FORMATS``, or a format.

    Returns:
        The format.

    Raises:
        UnknownPrecisionError: There is none; the message lists the known ones.

    Example:
        >>> named("bfloat16").mantissa_bits
        7
    """
    if isinstance(name, Format):
        return name
    if name not in FORMATS:
        hint = nearest(str(name), FORMATS)
        raise UnknownPrecisionError(
            f"Expected a number format: {', '.join(FORMATS)}. Received: {name!r}. {hint}".rstrip()
        )
    return FORMATS[name]
