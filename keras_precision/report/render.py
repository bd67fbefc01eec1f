"""render: results as tables, in the form that is asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from keras_precision.errors import InputError
from keras_precision.report import html, markdown, text
from keras_precision.report.gathered import gather
from keras_precision.report.hardware_table import hardware_table
from keras_precision.report.hosts import Host, by_host
from keras_precision.report.sensitivity_table import is_sensitivity, sensitivity_table
from keras_precision.report.table import Table, export_table, run_table
from keras_precision.result import Result

__all__ = ["render", "tables"]

_DRAW: dict[str, Callable[[Table], str]] = {"text": text.draw, "markdown": markdown.draw, "html": html.draw}
_APART = "Times of different machines are not comparable: each machine has a table of its own."


def render(results: Result | Sequence[Result], format: str = "text") -> str:  # noqa: A002 - the name that users expect
    """Return results as text, Markdown or HTML.

    Training runs and models to deploy get a table each, and so does each machine; the first of its kind is the baseline of
    the speedup.

    Args:
        results: One result or several.
        format: ``"text"`` for a terminal, ``"markdown"`` for a pull request, or ``"html"``: a fragment for a
            notebook or a page of one's own. ``kp.save_report`` writes a whole page, with charts.

    Returns:
        The tables.

    Raises:
        InputError: There is no result, or the format is unknown.

    Example:
        >>> from keras_precision.result import Measurement
        >>> print(render(Result("int8", (Measurement("m.tflite", "size_bytes", 52000),)), format="markdown").splitlines()[4])
        | int8 | 52.0 kB | - | - | - | - | - |
    """
    if format not in _DRAW:
        raise InputError(f"Expected format to be one of {', '.join(_DRAW)}. Received: {format!r}.")
    found: Any = gather(results)
    hosts = by_host(found.results)
    drawn = [table for host in hosts for table in _of_host(host, named=len(hosts) > 1)]
    return "\n\n".join(map(_DRAW[format], drawn))


def tables(results: Sequence[Result]) -> list[Table]:
    """Return the tables of results of one machine.

    Args:
        results: The results.

    Returns:
        Training runs, models to deploy, what the hardware can do, and how sensitive layers are, as far as there are any.
    """
    runs = [result for result in results if result.select("step_time_ms")]
    machines = [result for result in results if result.select("accelerated")]
    sweeps = [result for result in results if is_sensitivity(result)]
    models = [result for result in results if result not in [*runs, *machines, *sweeps]]
    made = [make(group) for make, group in ((run_table, runs), (export_table, models)) if group]
    return [*made, *map(hardware_table, machines), *map(sensitivity_table, sweeps)]


def _of_host(host: Host, *, named: bool) -> Iterator[Table]:
    for table in tables(host.results):
        yield replace(table, title=f"{table.title} on {host.name}", notes=(*table.notes, _APART)) if named else table
