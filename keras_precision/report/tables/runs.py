"""The tables of training runs, and of models to deploy."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keras_precision.core.metrics import METRICS, metric_of
from keras_precision.core.result import Result
from keras_precision.core.table import UNKNOWN, Table, formatted
from keras_precision.report.values import figure, shown

__all__ = ["UNKNOWN", "Column", "Table", "export_table", "formatted", "run_table"]

_ERRORS = ("mean_absolute_error", "mean_squared_error")


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: Its heading.
        cell: What stands in it, from a result.
    """

    title: str
    cell: Callable[[Result], str]


def run_table(results: Sequence[Result]) -> Table:
    """Return the table of training runs, the first of them the baseline.

    Args:
        results: Results of ``PrecisionProfiler``.

    Returns:
        One row a run.
    """
    metrics = sorted(
        {row.metric for result in results for row in result if row.metric.startswith("val_")} - {"val_loss"}
    )
    columns = [
        Column("Run", lambda result: result.name),
        _metric("Step time", "step_time_ms"),
        _metric("p95", "step_time_p95_ms"),
        _metric("Samples/s", "samples_per_second", unit=False),
        Column("Speedup", lambda result: _ratio(results[0], result, "step_time_ms")),
        _metric("Peak memory", "peak_memory_mb"),
        _metric("Skipped", "skipped_steps"),
        _metric("Loss scale", "loss_scale"),
        *(_metric(metric.replace("_", " ").capitalize(), metric) for metric in metrics),
    ]
    return _table("Training", columns, results, [*_memory_notes(results), *_time_notes(results)])


def export_table(results: Sequence[Result]) -> Table:
    """Return the table of models to deploy, the first of them the baseline.

    Args:
        results: Results that hold size, latency, accuracy and agreement.

    Returns:
        One row a file, or a model; a column for each score beside the accuracy, such as a mean absolute error.
    """
    own = _scores(results)
    scores = ["accuracy"] if not own or any(result.select("accuracy") for result in results) else []
    columns = [
        Column("Precision", lambda result: result.name),
        _metric("Size", "size_bytes"),
        _metric("Latency", "latency_ms"),
        _metric("p95", "latency_p95_ms"),
        Column("Speedup", lambda result: _ratio(results[0], result, "latency_ms")),
        *(_metric(metric.replace("_", " ").capitalize(), metric) for metric in [*scores, *own]),
        _metric("Agreement", "agreement"),
    ]
    how = {result.environment.sources.get("latency_ms", "") for result in results}
    return _table("Deployment", columns, results, [f"Latency: {text}." for text in sorted(how) if text])


def _scores(results: Sequence[Result]) -> list[str]:
    """Return the scores beside the accuracy: a regression's errors, and metrics that the package does not know."""
    rows = (row for result in results for row in result if row.step is None and isinstance(row.value, int | float))
    return list(dict.fromkeys(row.metric for row in rows if row.metric in _ERRORS or row.metric not in METRICS))


def _metric(title: str, metric: str, *, unit: bool = True) -> Column:
    def cell(result: Result) -> str:
        text = formatted(metric, shown(result, metric))
        return text if unit else text.removesuffix(f" {metric_of(metric).unit}")

    return Column(title, cell)


def _ratio(baseline: Result, result: Result, metric: str) -> str:
    before, after = figure(baseline, metric), figure(result, metric)
    return f"{before / after:.2f}x" if before and after and math.isfinite(before / after) else UNKNOWN


def _table(title: str, columns: Sequence[Column], results: Sequence[Result], notes: Sequence[str]) -> Table:
    rows = tuple(tuple(column.cell(result) for column in columns) for result in results)
    return Table(title, tuple(column.title for column in columns), rows, tuple(notes))


def _memory_notes(results: Sequence[Result]) -> list[str]:
    sources = dict.fromkeys(result.environment.sources.get("peak_memory_mb", "") for result in results)
    return [f"Memory: {source}." for source in sources if source]


def _time_notes(results: Sequence[Result]) -> list[str]:
    known = [figure(result, "steps_measured") or 0 for result in results]
    counts = sorted({int(count) for count in known if math.isfinite(count)}) or [0]
    if not counts[-1]:
        return ["Step time: unknown, as every step was a warm-up step. Train longer."]
    steps = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return [f"Step time: median of {steps} steps a run, warm-up left out."]
