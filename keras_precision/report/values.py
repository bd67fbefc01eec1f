"""figure and series: numbers of a result, whatever it holds."""

import operator
from typing import Any

from keras_precision.core.errors import NotMeasuredError
from keras_precision.core.result import Result

__all__ = ["figure", "series", "shown"]


def shown(result: Result, metric: str) -> Any:
    """Return what stands for a metric in a table.

    Args:
        result: The result.
        metric: The metric.

    Returns:
        Its value; None where it is unknown, was not measured, or several subjects have one.

    Example:
        >>> shown(Result("run"), "step_time_ms") is None
        True
    """
    try:
        return result.get(metric)
    except NotMeasuredError:
        return None


def figure(result: Result, metric: str) -> float | None:
    """Return the number that stands for a metric.

    Args:
        result: The result.
        metric: The metric.

    Returns:
        The number, which may be NaN or infinite; None as for ``shown``, and for a text.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> figure(Result("run", (Measurement("fit", "loss_scale", 2.0, step=1),)), "loss_scale")
        2.0
    """
    value = shown(result, metric)
    return value if isinstance(value, int | float) else None


def series(result: Result, metric: str, subject: str | None = None) -> tuple[list[int], list[float | None]]:
    """Return how a metric went, in the order of the steps.

    Args:
        result: The result.
        metric: The metric.
        subject: Only of this subject.

    Returns:
        The steps, and the number at each; None for one that is unknown, and for a text.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> series(Result("", (Measurement("epoch", "loss", 1.0, 2), Measurement("epoch", "loss", "?", 1))), "loss")
        ([1, 2], [None, 1.0])
    """
    pairs = sorted(zip(*result.series(metric, subject), strict=True), key=operator.itemgetter(0))
    found = [(step, value if isinstance(value, int | float) else None) for step, value in pairs]
    return [step for step, _ in found], [value for _, value in found]
