"""The table of all metrics of one result."""

from keras_precision.core.result import Result
from keras_precision.report.tables.channels import without_channels
from keras_precision.report.tables.runs import Table, format_value

__all__ = ["figures_table"]


def figures_table(result: Result) -> Table:
    """Return all summaries of a result, one row per metric, with the subject if there are several.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> figures_table(Result("m", (Measurement("m", "accuracy", 0.5),))).rows
        (('accuracy', '50.00 %'),)
    """
    summaries = [row for row in without_channels(result) if row.step is None]
    several = len({row.subject for row in summaries}) > 1
    rows = tuple(
        (*((row.subject,) if several else ()), row.metric, format_value(row.metric, row.value)) for row in summaries
    )
    header = ("Of", "Metric", "Value") if several else ("Metric", "Value")
    sources = dict.fromkeys(
        f"{metric}: {source}." for metric, source in result.environment.sources.items() if result.select(metric)
    )
    return Table(result.name, header, rows, (*sources, *result.notes))
