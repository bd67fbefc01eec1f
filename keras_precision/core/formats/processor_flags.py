"""Flags, as Linux names them, of processors that compute in a number format natively.

They are not in ``number_format``, which needs ml_dtypes: devices that have only NumPy read their flags, too.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

__all__ = ["PROCESSOR_FLAGS", "RECORDED_FLAGS", "native_flags"]

PROCESSOR_FLAGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "bfloat16": ("avx512_bf16", "amx_bf16", "bf16"),
        "float16": ("avx512_fp16", "amx_fp16", "asimdhp"),
        "int8": ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"),
    }
)
"""Number format to the flags of processors that multiply in it; one of them is enough."""

RECORDED_FLAGS = frozenset({"f16c", "fma", "avx2", "avx512f", "sve", "sve2"}.union(*PROCESSOR_FLAGS.values()))
"""Flags that an environment records: those above, and the vector extensions that compute products in float32."""


def native_flags(name: str, cpu_flags: Iterable[str]) -> tuple[str, ...]:
    """Return those flags of a processor that mean native support for a number format (or its Keras policy), sorted.

    Example:
        >>> native_flags("mixed_float16", ("asimdhp", "sve"))
        ('asimdhp',)
    """
    return tuple(sorted({*PROCESSOR_FLAGS.get(name.removeprefix("mixed_"), ())} & {*cpu_flags}))
