"""The classic table of a comparison, and what its figures show, in words."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from keras_precision.comparison.recommendation import speedup, time_metric
from keras_precision.core.errors import InputError, NotComparableError, NotMeasuredError
from keras_precision.core.metrics import metric_of
from keras_precision.core.result import Result
from keras_precision.core.table import UNKNOWN, Table, formatted

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
_LOSS_OF_A_CLASS = 0.02


def comparison_table(comparison: "Comparison") -> Table:
    """Return the table of a comparison.

    Args:
        comparison: The comparison.

    Returns:
        One row a run, the baseline first; the notes say what is shown.
    """
    deployed = time_metric(comparison) == "latency_ms"
    metrics = list(_DEPLOYMENT if deployed else _TRAINING)
    metrics += [comparison.metric] if comparison.metric and comparison.metric not in metrics else []
    metrics += ["diverged_share"] if any(each.get("diverged_share") for each in comparison.results) else []
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
        cells.append(formatted(metric, result.get(metric)))
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
        words = [f"{metric} {word}" for metric in metrics if (word := _word(comparison, metric, other.name))]
        if words:
            yield f"{other.name} against {comparison.baseline.name}: {', '.join(words)}."
        yield from _hurt_classes(comparison, other.name)
        yield from (f"{other.name}: {note}" for note in other.notes)
    yield from (f"{comparison.baseline.name}: {note}" for note in comparison.baseline.notes)
    if comparison.others:
        yield f"Recommended: {comparison.recommended}: {comparison.reason}"
    yield from _sources(comparison, timed)
    yield from comparison.notes


def _word(comparison: "Comparison", metric: str, run: str) -> str | None:
    """The verdict on a figure; None where it has none, or follows from another one."""
    if metric == "samples_per_second" or metric_of(metric).name in ("agreement", "diverged_share"):
        return None
    try:
        return comparison.verdict(metric, run)
    except (NotComparableError, NotMeasuredError, InputError):
        return None


def _hurt_classes(comparison: "Comparison", run: str) -> Iterator[str]:
    losses = {kind: change for kind, change in comparison.class_changes(run).items() if change < -_LOSS_OF_A_CLASS}
    if losses:
        worst = ", ".join(
            f"{kind} ({100 * change:+.1f} points)" for kind, change in list(losses.items())[:_WORST_CLASSES]
        )
        yield f"{run}: {len(losses)} classes lose more than {100 * _LOSS_OF_A_CLASS:.0f} points of accuracy: {worst}."


def _sources(comparison: "Comparison", timed: str) -> Iterator[str]:
    for metric in (timed, "peak_memory_mb"):
        sources = dict.fromkeys(result.environment.sources.get(metric, "") for result in comparison.results)
        yield from (f"{_TITLES[metric]}: {source}." for source in sources if source)
