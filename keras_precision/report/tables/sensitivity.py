"""The table of a model's sensitivity to the precision of single layers."""

import math

from keras_precision.core.result import Result
from keras_precision.report.tables.runs import UNKNOWN, Table, format_value

__all__ = ["is_sensitivity", "sensitivity_table"]

_TITLES = {
    "divergence": "Divergence",
    "metric_drop": "Metric drop",
    "size_bytes": "Size",
    "bit_operations": "Bit operations",
    "latency_ms": "Latency",
}
_WIDTH = 16
_BLOCK = "█"


def is_sensitivity(result: Result) -> bool:
    """Return whether a result is one of ``kp.sensitivity``: with the divergence of several subjects."""
    return len({row.subject for row in result.select("divergence")}) > 1


def sensitivity_table(result: Result) -> Table:
    """Return the table of a result of ``kp.sensitivity``, the most sensitive layer first, with bars of the divergence.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> rows = (Measurement("all in int8", "divergence", 0.01), Measurement("stem in int4", "divergence", 0.04))
        >>> sensitivity_table(Result("sensitivity:int8,int4", rows)).rows[0]
        ('stem in int4', '████████████████', '0.04')
    """
    subjects = {row.subject: row.value for row in result.select("divergence")}
    known = {subject: float(value) for subject, value in subjects.items() if isinstance(value, int | float)}
    numbers = {subject: value for subject, value in known.items() if math.isfinite(value)}
    longest = max(numbers.values(), default=0.0)
    measured = [metric for metric in _TITLES if result.select(metric)]
    rows = []
    for subject in sorted(numbers, key=lambda name: (-numbers[name], name)):
        share = numbers[subject] / longest if longest > 0 else 0.0
        cells = [
            format_value(metric, result.value(metric, subject)) if result.select(metric, subject) else UNKNOWN
            for metric in measured
        ]
        rows.append((subject, _BLOCK * math.ceil(share * _WIDTH - 1e-9), *cells))
    source = result.environment.sources.get("divergence", "")
    notes = (f"Divergence: from the float model, on {source}.",) if source else ()
    return Table("Sensitivity", ("Layer", "", *(_TITLES[metric] for metric in measured)), tuple(rows), notes)
