"""The table of the number formats that a machine accelerates."""

from keras_precision.core.result import Result
from keras_precision.report.tables.runs import UNKNOWN, Table, format_value

__all__ = ["hardware_table"]

_OPERATIONS = {"matmul_ms": "Matrix product", "convolution_ms": "Convolution", "depthwise_ms": "Depthwise"}


def hardware_table(result: Result) -> Table:
    """Return the table of a result of ``kp.hardware``, one row per format, with speedups against float32.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> hardware_table(Result("cpu", (Measurement("float32", "accelerated", 1),))).rows
        (('float32', 'yes'),)
    """
    measured = [metric for metric in _OPERATIONS if result.select(metric)]
    header = ["Format", "In hardware"]
    for metric in measured:
        header += [_OPERATIONS[metric], "Speedup"]
    rows = tuple(_row(result, row.subject, measured) for row in result.select("accelerated"))
    backend = result.environment.backend
    title = f"{result.name} with {backend}" if backend else result.name
    sources = dict.fromkeys(result.environment.sources.get(metric, "") for metric in measured)
    return Table(title, tuple(header), rows, (*result.notes, *(f"Times: {text}." for text in sources if text)))


def _row(result: Result, name: str, measured: list[str]) -> tuple[str, ...]:
    cells = [name, "yes" if result.value("accelerated", name) else "no"]
    for metric in measured:
        time = result.value(metric, name) if result.select(metric, name) else None
        float32_time = result.value(metric, "float32")
        cells += [format_value(metric, time), f"{float32_time / time:.2f}x" if time else UNKNOWN]
    return tuple(cells)
