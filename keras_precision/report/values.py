"""Numbers of a result, for tables and charts."""

import operator
from typing import Any

from keras_precision.core.errors import NotMeasuredError
from keras_precision.core.result import Result

__all__ = ["number_or_none", "series", "value_or_none"]


def value_or_none(result: Result, metric: str) -> Any:
    """Return the value of a metric; None where it is unknown, was not measured, or is that of several subjects.

    Example:
        >>> value_or_none(Result("run"), "step_time_ms") is None
        True
    """
    try:
        return result.get(metric)
    except NotMeasuredError:
        return None


def number_or_none(result: Result, metric: str) -> float | None:
    """Return the value of a metric as ``value_or_none``, but None for a text; it may be NaN or infinite.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> number_or_none(Result("run", (Measurement("fit", "loss_scale", 2.0, step=1),)), "loss_scale")
        2.0
    """
    value = value_or_none(result, metric)
    return value if isinstance(value, int | float) else None


def series(result: Result, metric: str, subject: str | None = None) -> tuple[list[int], list[float | None]]:
    """Return steps in order, and the numbers of a metric at them; None for unknown values and texts.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> series(Result("", (Measurement("epoch", "loss", 1.0, 2), Measurement("epoch", "loss", "?", 1))), "loss")
        ([1, 2], [None, 1.0])
    """
    rows = sorted(zip(*result.series(metric, subject), strict=True), key=operator.itemgetter(0))
    numbers = [value if isinstance(value, int | float) else None for _, value in rows]
    return [step for step, _ in rows], numbers
