"""The tables of an accuracy drop: per class, the most sensitive layers, and the recovery."""

from collections.abc import Iterator, Sequence

from keras_precision.core.result import Result
from keras_precision.report.tables.runs import UNKNOWN, Table, format_value

__all__ = ["drop_tables", "is_drop"]

_GROUPS = {
    "samples": "Samples",
    "changed_samples": "Changed",
    "lost_samples": "Lost",
    "won_samples": "Won",
    "float_accuracy": "Float accuracy",
    "accuracy": "Accuracy",
    "p_value": "p",
    "float_mean_absolute_error": "Float error",
    "mean_absolute_error": "Error",
}
_LAYERS = {
    "changed_lowered_alone": "Changed, only this layer quantized",
    "divergence_lowered_alone": "Divergence, only this layer quantized",
    "changed_kept_alone": "Changed, only this layer in float",
    "divergence_only_layer_in_float": "Divergence, only this layer in float",
    "size_kept_alone": "Size, only this layer in float",
}
_STEPS = {"changed_share": "Changed", "size_bytes": "Size"}


def is_drop(result: Result) -> bool:
    """Return whether a result is one of ``kp.explain_drop``."""
    return bool(result.select("changed_samples", "all"))


def drop_tables(result: Result) -> tuple[Table, ...]:
    """Return the tables of a result of ``kp.explain_drop``: groups of samples, most sensitive layers, recovery.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> rows = (Measurement("all", "samples", 9), Measurement("all", "changed_samples", 2))
        >>> drop_tables(Result("drop", rows))[0].rows
        (('all', '9', '2'),)
    """
    return tuple(_tables(result))


def _tables(result: Result) -> Iterator[Table]:
    groups = [row.subject for row in result.select("samples")]
    yield _table(result, f"Accuracy drop per class: {result.name}", "Samples of", groups, _GROUPS, ())
    layers = [row.subject for row in result.select("changed_kept_alone")]
    if layers:
        source = result.environment.sources.get("changed_kept_alone", "")
        yield _table(result, "Most sensitive layers", "Layer", layers, _LAYERS, (source,) if source else ())
    steps = [row.subject for row in result.select("changed_share")]
    if steps:
        ratio = result.get("latency_ratio")
        cost = () if ratio is None else (f"The plan's file takes {ratio:.2f} times as long as the explained file.",)
        yield _table(result, "Accuracy recovery", "File", steps, _STEPS, (*cost, *result.notes))


def _table(
    result: Result, title: str, first: str, subjects: Sequence[str], titles: dict[str, str], notes: tuple[str, ...]
) -> Table:
    cells = {(row.subject, row.metric): row.value for row in result}
    metrics = [metric for metric in titles if any((subject, metric) in cells for subject in subjects)]
    rows = tuple(
        (subject, *(_cell(metric, cells.get((subject, metric))) for metric in metrics)) for subject in subjects
    )
    return Table(title, (first, *(titles[metric] for metric in metrics)), rows, notes)


def _cell(metric: str, value: float | int | str | None) -> str:
    if not isinstance(value, int | float):
        return UNKNOWN
    if metric.startswith("changed_") and metric != "changed_samples":
        return f"{100 * value:.2f} %"
    return f"{100 * value:.2f} %" if metric == "float_accuracy" else format_value(metric, value)
