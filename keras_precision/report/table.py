"""Table: rows of results as they are read, whatever draws them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keras_precision.metrics import metric_of
from keras_precision.result import Result, Value

__all__ = ["Column", "Table", "export_table", "formatted", "run_table"]

UNKNOWN = "-"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: Its heading.
        cell: What stands in it, from a result.
    """

    title: str
    cell: Callable[[Result], str]


@dataclass(frozen=True)
class Table:
    """A table, ready to be drawn.

    Attributes:
        title: What it shows.
        header: One heading per column.
        rows: Cells, as text.
        notes: What a reader should know.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def formatted(metric: str, value: Value) -> str:
    """Return a figure as tables show it, with its unit.

    Args:
        metric: What it is a figure of.
        value: The figure.

    Returns:
        Three significant digits for times and rates, whole numbers for counts, percent for
        shares; a dash for what is not known.

    Example:
        >>> formatted("step_time_ms", 12.3456), formatted("accuracy", 0.9815)
        ('12.3 ms', '98.15 %')
    """
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return value
    known = metric_of(metric)
    bare = metric.removeprefix("val_")
    if bare in ("accuracy", "agreement"):
        return f"{100 * value:.2f} %"
    if known.unit == "B":
        return f"{value / 1e3:,.1f} kB"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,} {known.unit}".rstrip()
    digits = f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"
    return f"{digits} {known.unit}".rstrip()


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
        One row a file, or a model.
    """
    columns = [
        Column("Precision", lambda result: result.name),
        _metric("Size", "size_bytes"),
        _metric("Latency", "latency_ms"),
        _metric("p95", "latency_p95_ms"),
        Column("Speedup", lambda result: _ratio(results[0], result, "latency_ms")),
        _metric("Accuracy", "accuracy"),
        _metric("Agreement", "agreement"),
    ]
    how = {result.environment.sources.get("latency_ms", "") for result in results}
    return _table("Deployment", columns, results, [f"Latency: {text}." for text in sorted(how) if text])


def _metric(title: str, metric: str, *, unit: bool = True) -> Column:
    def cell(result: Result) -> str:
        text = formatted(metric, result.get(metric))
        return text if unit else text.removesuffix(f" {metric_of(metric).unit}")

    return Column(title, cell)


def _ratio(baseline: Result, result: Result, metric: str) -> str:
    before, after = baseline.get(metric), result.get(metric)
    return f"{before / after:.2f}x" if before and after and math.isfinite(before / after) else UNKNOWN


def _table(title: str, columns: Sequence[Column], results: Sequence[Result], notes: Sequence[str]) -> Table:
    rows = tuple(tuple(column.cell(result) for column in columns) for result in results)
    return Table(title, tuple(column.title for column in columns), rows, tuple(notes))


def _memory_notes(results: Sequence[Result]) -> list[str]:
    sources = dict.fromkeys(result.environment.sources.get("peak_memory_mb", "") for result in results)
    return [f"Memory: {source}." for source in sources if source]


def _time_notes(results: Sequence[Result]) -> list[str]:
    counts = sorted({int(result.get("steps_measured") or 0) for result in results})
    if not counts[-1]:
        return ["Step time: unknown, as every step was a warm-up step. Train longer."]
    steps = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return [f"Step time: median of {steps} steps a run, warm-up left out."]
