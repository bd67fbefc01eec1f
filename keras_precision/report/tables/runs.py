"""The tables of training runs and of exported models."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keras_precision.core.metrics import METRICS, metric_of
from keras_precision.core.result import Result
from keras_precision.core.table import UNKNOWN, Table, format_value
from keras_precision.report.values import number_or_none, value_or_none

__all__ = ["UNKNOWN", "Column", "Table", "export_table", "format_value", "run_table"]

_ERRORS = ("mean_absolute_error", "mean_squared_error")


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, and the text of its cell for a result."""

    title: str
    cell: Callable[[Result], str]


def run_table(results: Sequence[Result]) -> Table:
    """Return the table of training runs by ``PrecisionProfiler``; the first is the baseline. One run has known figures alone."""
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
    """Return the table of exported files and models, with all their scores; the first is the baseline."""
    others = _other_scores(results)
    scores = ["accuracy"] if not others or any(result.select("accuracy") for result in results) else []
    columns = [
        Column("Precision", lambda result: result.name),
        _metric("Size", "size_bytes"),
        _metric("Latency", "latency_ms"),
        _metric("p95", "latency_p95_ms"),
        Column("Speedup", lambda result: _ratio(results[0], result, "latency_ms")),
        *(_metric(metric.replace("_", " ").capitalize(), metric) for metric in [*scores, *others]),
        _metric("Agreement", "agreement"),
    ]
    sources = {result.environment.sources.get("latency_ms", "") for result in results}
    return _table("Deployment", columns, results, [f"Latency: {text}." for text in sorted(sources) if text])


def _other_scores(results: Sequence[Result]) -> list[str]:
    """Return the scores other than the accuracy: errors of a regression, and metrics of the user."""
    rows = (row for result in results for row in result if row.step is None and isinstance(row.value, int | float))
    return list(dict.fromkeys(row.metric for row in rows if row.metric in _ERRORS or row.metric not in METRICS))


def _metric(title: str, metric: str, *, unit: bool = True) -> Column:
    def cell(result: Result) -> str:
        text = format_value(metric, value_or_none(result, metric))
        return text if unit else text.removesuffix(f" {metric_of(metric).unit}")

    return Column(title, cell)


def _ratio(baseline: Result, result: Result, metric: str) -> str:
    before, after = number_or_none(baseline, metric), number_or_none(result, metric)
    return f"{before / after:.2f}x" if before and after and math.isfinite(before / after) else UNKNOWN


def _table(title: str, columns: Sequence[Column], results: Sequence[Result], notes: Sequence[str]) -> Table:
    if len(results) == 1:  # which has nothing to be compared with
        first, *others = columns
        columns = [
            first,
            *(column for column in others if column.title != "Speedup" and column.cell(results[0]) != UNKNOWN),
        ]
    rows = tuple(tuple(column.cell(result) for column in columns) for result in results)
    return Table(title, tuple(column.title for column in columns), rows, tuple(notes))


def _memory_notes(results: Sequence[Result]) -> list[str]:
    sources = dict.fromkeys(result.environment.sources.get("peak_memory_mb", "") for result in results)
    return [f"Memory: {source}." for source in sources if source]


def _time_notes(results: Sequence[Result]) -> list[str]:
    known = [number_or_none(result, "steps_measured") or 0 for result in results]
    counts = sorted({int(count) for count in known if math.isfinite(count)}) or [0]
    if not counts[-1]:
        return ["Step time: unknown, because every step was a warm-up step. Train longer."]
    steps = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return [f"Step time: median of {steps} steps per run, without warm-up."]
