"""The table of a result with many subjects of one kind: layers, plans, operators."""

from keras_precision.core.result import Result
from keras_precision.report.tables.channels import without_channels
from keras_precision.report.tables.figures import figures_table
from keras_precision.report.tables.runs import Table, format_value

__all__ = ["subject_table"]

_TITLES = {"snr_db": "SNR", "snr_loss_db": "SNR loss"}


def subject_table(result: Result) -> Table:
    """Return the summaries of a result, one row per subject; for a single subject, one row per metric.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> rows = [Measurement(layer, "divergence", value) for layer, value in (("stem", 0.5), ("head", 0.25))]
        >>> subject_table(Result("sensitivity", rows)).rows
        (('stem', '0.5'), ('head', '0.25'))
    """
    cells = {(row.subject, row.metric): row.value for row in without_channels(result) if row.step is None}
    subjects = list(dict.fromkeys(subject for subject, _ in cells))
    metrics = list(dict.fromkeys(metric for _, metric in cells))
    if len(subjects) < 2:
        return figures_table(result)
    rows = tuple(
        (subject, *(format_value(metric, cells.get((subject, metric))) for metric in metrics)) for subject in subjects
    )
    header = ("Of", *(_TITLES.get(metric) or metric.replace("_", " ").capitalize() for metric in metrics))
    sources = [f"{metric}: {source}." for metric, source in result.environment.sources.items() if metric in metrics]
    return Table(result.name, header, rows, (*dict.fromkeys(sources), *result.notes))
