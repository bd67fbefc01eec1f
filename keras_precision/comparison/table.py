"""The table of a comparison, with its verdicts and recommendation as notes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from keras_precision.comparison.recommendation import speedup, time_metric
from keras_precision.core.errors import InputError, NotComparableError, NotMeasuredError
from keras_precision.core.metrics import metric_of
from keras_precision.core.result import Result
from keras_precision.core.table import UNKNOWN, Table, format_value

if TYPE_CHECKING:
    from keras_precision.comparison.comparison import Comparison

__all__ = ["comparison_table"]

_TRAINING = ("step_time_ms", "peak_memory_mb")
_DEPLOYMENT = ("size_bytes", "latency_ms", "samples_per_second", "accuracy", "agreement")
_TITLES = {
    "step_time_ms": "Step time", "latency_ms": "Latency", "peak_memory_mb": "Peak memory", "size_bytes": "Model size",
    "samples_per_second": "Throughput", "batch_size": "Batch",
}  # fmt: skip
_WORST_CLASSES = 3
_CLASS_LOSS = 0.02


def comparison_table(comparison: "Comparison") -> Table:
    """Return the table of a comparison, one row per run, the baseline first."""
    deployed = time_metric(comparison) == "latency_ms"
    metrics = list(_DEPLOYMENT if deployed else _TRAINING)
    metrics += [comparison.metric] if comparison.metric and comparison.metric not in metrics else []
    metrics += ["diverged_share"] if any(result.get("diverged_share") for result in comparison.results) else []
    baseline = comparison.baseline.name
    against = "FP32" if baseline.endswith("float32") else baseline
    timed = time_metric(comparison)
    header = ["Precision" if deployed else "Run"]
    for metric in metrics:
        header += [_TITLES.get(metric, metric.replace("_", " ").capitalize())]
        header += [f"Speedup vs {against}"] if metric == timed else []
    if deployed:
        header.append("Acc. per ms")
    rows = tuple(_row(comparison, result, metrics, timed) for result in comparison.results)
    title = "Deployment" if deployed else "Training"
    return Table(title, tuple(header), rows, tuple(_notes(comparison, metrics, timed)))


def _row(comparison: "Comparison", result: Result, metrics: list[str], timed: str) -> tuple[str, ...]:
    cells = [result.name]
    for metric in metrics:
        cells.append(format_value(metric, result.get(metric)))
        cells += [_speedup(comparison, result)] if metric == timed else []
    if timed == "latency_ms":
        accuracy, latency = result.get("accuracy"), result.get("latency_ms")
        cells.append(f"{100 * accuracy / latency:.3g} %/ms" if accuracy is not None and latency else UNKNOWN)
    return tuple(cells)


def _speedup(comparison: "Comparison", result: Result) -> str:
    if result is comparison.baseline:
        return "1.00x"
    speed = speedup(comparison, result.name)
    return UNKNOWN if speed is None else f"{speed.estimate:.2f}x ({speed.low:.2f}-{speed.high:.2f})"


def _notes(comparison: "Comparison", metrics: list[str], timed: str) -> Iterator[str]:
    for other in comparison.others:
        verdicts = [f"{metric} {text}" for metric in metrics if (text := _verdict(comparison, metric, other.name))]
        if verdicts:
            yield f"{other.name} against {comparison.baseline.name}: {', '.join(verdicts)}."
        yield from _class_losses(comparison, other.name)
        yield from (f"{other.name}: {note}" for note in other.notes)
    yield from (f"{comparison.baseline.name}: {note}" for note in comparison.baseline.notes)
    if comparison.others:
        yield f"Recommended: {comparison.recommended}: {comparison.reason}"
    yield from _sources(comparison, timed)
    yield from comparison.notes


def _verdict(comparison: "Comparison", metric: str, run: str) -> str | None:
    """Return the verdict; None for a metric that has none, or that follows from another one."""
    if metric == "samples_per_second" or metric_of(metric).name in ("agreement", "diverged_share"):
        return None
    try:
        return comparison.verdict(metric, run)
    except (NotComparableError, NotMeasuredError, InputError):
        return None


def _class_losses(comparison: "Comparison", run: str) -> Iterator[str]:
    losses = {name: change for name, change in comparison.class_changes(run).items() if change < -_CLASS_LOSS}
    if losses:
        worst = ", ".join(
            f"{name} ({100 * change:+.1f} points)" for name, change in list(losses.items())[:_WORST_CLASSES]
        )
        yield f"{run}: {len(losses)} classes lose more than {100 * _CLASS_LOSS:.0f} points of accuracy: {worst}."


def _sources(comparison: "Comparison", timed: str) -> Iterator[str]:
    for metric in (timed, "peak_memory_mb"):
        sources = dict.fromkeys(result.environment.sources.get(metric, "") for result in comparison.results)
        yield from (f"{_TITLES[metric]}: {source}." for source in sources if source)
