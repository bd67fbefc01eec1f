"""Results as tables in text, Markdown or HTML."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from keras_precision.core.errors import InputError
from keras_precision.core.result import Result
from keras_precision.core.table import Table
from keras_precision.report import markdown, text
from keras_precision.report.by_machine import Host, by_host
from keras_precision.report.loading import Source, collect_results
from keras_precision.report.tables.channels import channel_tables
from keras_precision.report.tables.drop import drop_tables, is_drop
from keras_precision.report.tables.hardware import hardware_table
from keras_precision.report.tables.runs import export_table, run_table
from keras_precision.report.tables.sensitivity import is_sensitivity, sensitivity_table
from keras_precision.report.tables.subjects import subject_table
from keras_precision.report.values import value_or_none

__all__ = ["render", "tables"]

_DRAW: dict[str, Callable[[Table], str]] = {"text": text.draw, "markdown": markdown.draw, "html": Table._repr_html_}
_MACHINE_NOTE = "Times of different machines are not comparable: every machine has its own table."


def render(results: Source | Sequence[Source], format: str = "text") -> str:  # noqa: A002 - the name that users expect
    """Return results as text, Markdown or HTML.

    Training runs and exported models are in separate tables, as are results of different machines. The first row of a table
    is the baseline of its speedups.

    Args:
        results: A result, comparison, file or folder, or several of them.
        format: ``"text"`` for a terminal, ``"markdown"`` for a pull request, or ``"html"``: a fragment for a notebook or
            a web page. ``kp.save_report`` writes a whole page with charts.

    Returns:
        The tables.

    Raises:
        InputError: There is no result, or the format is unknown.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> print(render(Result("int8", (Measurement("m.tflite", "size_bytes", 52000),)), format="markdown").splitlines()[4])
        | int8 | 52.0 kB |
    """
    if format not in _DRAW:
        raise InputError(f"Expected format to be one of {', '.join(_DRAW)}. Received: {format!r}. Use one of them.")
    inputs = collect_results(results)
    hosts = by_host(inputs.results)
    shown = [comparison.table() for comparison in inputs.comparisons]
    for host in hosts:
        shown += _host_tables(host, inputs.uncompared(host.results), named=len(hosts) > 1)
    return "\n\n".join(map(_DRAW[format], shown))


def tables(results: Sequence[Result]) -> list[Table]:
    """Return the tables of one machine: training runs, exported models, explanations, hardware, sensitivity, the rest."""
    runs = [result for result in results if result.select("step_time_ms") and not is_sensitivity(result)]
    machines = [result for result in results if result.select("accelerated", "float32")]
    sensitivities = [result for result in results if is_sensitivity(result) and result not in machines]
    drops = [result for result in results if is_drop(result)]
    rest = [result for result in results if result not in [*runs, *machines, *sensitivities, *drops]]
    others = [result for result in rest if not _is_model(result) and any(row.step is None for row in result)]
    models = [result for result in rest if result not in others]
    return [
        *(make(group) for make, group in ((run_table, runs), (export_table, models)) if group),
        *map(hardware_table, machines),
        *map(sensitivity_table, sensitivities),
        *(table for result in drops for table in drop_tables(result)),
        *map(subject_table, others),
        *channel_tables(results),
    ]


def _is_model(result: Result) -> bool:
    """Return whether a result has a metric of the table of exported models."""
    return any(
        value_or_none(result, metric) is not None for metric in ("size_bytes", "latency_ms", "accuracy", "agreement")
    )


def _host_tables(host: Host, results: Sequence[Result], *, named: bool) -> Iterator[Table]:
    for table in tables(results):
        yield (
            replace(table, title=f"{table.title} on {host.name}", notes=(*table.notes, _MACHINE_NOTE))
            if named
            else table
        )
