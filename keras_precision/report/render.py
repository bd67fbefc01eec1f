"""render: results as a table, in the form that is asked for."""

from collections.abc import Callable, Sequence

from keras_precision.errors import InputError
from keras_precision.report import markdown, text
from keras_precision.report.hardware_table import hardware_table
from keras_precision.report.table import Table, export_table, run_table
from keras_precision.result import Result

__all__ = ["render"]

_DRAW: dict[str, Callable[[Table], str]] = {"text": text.draw, "markdown": markdown.draw}


def render(results: Result | Sequence[Result], format: str = "text") -> str:  # noqa: A002 - the name that users expect
    """Return results as text.

    Training runs and models to deploy get a table each, and so does each machine; the first of its kind is the baseline of
    the speedup.

    Args:
        results: One result or several.
        format: ``"text"`` or ``"markdown"``.

    Returns:
        The tables.

    Raises:
        InputError: There is no result, or the format is unknown.

    Example:
        >>> from keras_precision.result import Measurement
        >>> print(render(Result("int8", (Measurement("m.tflite", "size_bytes", 52000),)), format="markdown").splitlines()[4])
        | int8 | 52.0 kB | - | - | - | - | - |
    """
    given = [results] if isinstance(results, Result) else list(results)
    if format not in _DRAW:
        raise InputError(f"Expected format to be one of {', '.join(_DRAW)}. Received: {format!r}.")
    if not given:
        raise InputError("Expected at least one result. Received: none.")
    runs = [result for result in given if result.select("step_time_ms")]
    machines = [result for result in given if result.select("accelerated")]
    models = [result for result in given if result not in runs and result not in machines]
    tables = [make(group) for make, group in ((run_table, runs), (export_table, models)) if group]
    tables += map(hardware_table, machines)
    return "\n\n".join(_DRAW[format](table) for table in tables)
