"""The cheat sheet of number formats."""

from keras_precision.core.formats.fit import FORMATS, Format
from keras_precision.report.tables.runs import UNKNOWN, Table
from keras_precision.report.text import draw

__all__ = ["cheat_sheet", "formats_table"]

_HEADER = (
    "Format",
    "Bits",
    "Exponent",
    "Mantissa",
    "Largest",
    "Smallest normal",
    "Smallest",
    "Epsilon",
    "Multiplied in hardware by",
)
_NOTES = (
    "Below the smallest normal number, precision decreases bit by bit; below half of the smallest, a number becomes 0.",
    "Epsilon: the distance from 1 to the next number. Rounding changes a number by at most half of that, relatively.",
    "Integers represent scale * (q - zero_point): kp.formats.fit(array, 'int8') returns both.",
    "What is fast here: keras-precision hardware.",
)


def cheat_sheet() -> str:
    """Return the table of number formats as text for a terminal.

    Example:
        >>> "65504" in cheat_sheet()
        True
    """
    return draw(formats_table(), width=180)


def formats_table() -> Table:
    """Return the limits of all number formats, and the hardware that multiplies in them, one row per format.

    Example:
        >>> [row[0] for row in formats_table().rows[:3]]
        ['float32', 'tf32', 'bfloat16']
    """
    return Table("Number formats", _HEADER, tuple(map(_row, FORMATS.values())), _NOTES)


def _row(number: Format) -> tuple[str, ...]:
    limits: tuple[str, ...]
    if number.is_integer:
        limits = (f"{number.lowest:.0f} to {number.largest:.0f}", UNKNOWN, "1", UNKNOWN)
    else:
        limits = tuple(map(_short, (number.largest, number.smallest_normal, number.smallest_subnormal, number.epsilon)))
    counts = (number.bits, number.exponent_bits or UNKNOWN, number.mantissa_bits)
    return (number.name, *map(str, counts), *limits, _hardware(number))


def _short(value: float) -> str:
    return f"{value:.0f}" if 1 <= value < 1e6 else f"{value:.3g}"


def _hardware(number: Format) -> str:
    capability = number.compute_capability
    parts = ["everything"] if number.name == "float32" else []
    parts += [f"NVIDIA {capability[0]}.{capability[1]}"] if capability else []
    parts += ["TPU"] if number.tpu else []
    parts += [f"CPU: {', '.join(number.cpu_flags)}"] if number.cpu_flags else []
    return "; ".join(parts) or UNKNOWN
