"""A regression gate: tests whether a new result is worse than an old one, for continuous integration."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from keras_precision.comparison.effect import effect
from keras_precision.comparison.intervals import Interval
from keras_precision.core.errors import InputError, NotComparableError, NotMeasuredError
from keras_precision.core.metrics import metric_of
from keras_precision.core.result import Result
from keras_precision.core.table import format_value

__all__ = ["Check", "check_results"]

_CONFIDENCE = 0.9  # of a two-sided interval: each side is a test at 5 %
_QUALITY = ("accuracy", "val_accuracy")
_TIMES = ("step_time_ms", "latency_ms")
_AMOUNTS = ("size_bytes", "peak_memory_mb")


@dataclass(frozen=True)
class Check:
    """The outcome of one limit.

    Attributes:
        metric: The metric that is limited.
        verdict: ``"passed"`` (a loss beyond the limit is ruled out), ``"failed"`` (the loss is beyond the limit), or
            ``"inconclusive"`` (the data allow both).
        message: The values, and the reason.
    """

    metric: str
    verdict: Literal["passed", "failed", "inconclusive"]
    message: str


def check_results(
    old: Result,
    new: Result,
    *,
    max_drop: float | None = None,
    max_slowdown: float | None = None,
    max_growth: float | None = None,
    metric: str | None = None,
) -> tuple[Check, ...]:
    """Compare a new result with an old one, by non-inferiority tests instead of raw thresholds.

    A limit is passed if the whole interval of the difference (one-sided, 95 %) is within it; that the two values happen
    to be close is not enough.

    Args:
        old: The reference result.
        new: The result to check.
        max_drop: Acceptable loss of the metric, in its own unit: 0.005 is half a point of accuracy.
        max_slowdown: Acceptable ratio of the time of a step or a call, such as 1.05.
        max_growth: Acceptable ratio of the size of a file, or of the peak memory.
        metric: The metric that ``max_drop`` limits; None: ``"accuracy"``, or else ``"val_accuracy"``.

    Returns:
        One check per limit and metric.

    Raises:
        InputError: There is no limit, one is out of range, or the results do not share the metric of a limit.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> old, new = (Result(n, (Measurement("m.tflite", "size_bytes", size),)) for n, size in (("old", 1000), ("new", 1200)))
        >>> [check.verdict for check in check_results(old, new, max_growth=1.1)]
        ['failed']
    """
    if max_drop is None and max_slowdown is None and max_growth is None:
        raise InputError("Expected a limit. Received: none. Pass max_drop=0.005, max_slowdown=1.05 or max_growth=1.1.")
    _check_limits(max_drop, max_slowdown, max_growth)
    checks: list[Check] = []
    if max_drop is not None:
        name = metric or next((known for known in _QUALITY if old.select(known) and new.select(known)), None)
        if name is None or not (old.select(name) and new.select(name)):
            raise InputError(
                f"Expected a metric that '{old.name}' and '{new.name}' share. Received: {metric or 'none'}. Use one of: {_shared(old, new)}."
            )
        checks.append(_drop(old, new, name, max_drop))
    for limit, metrics in ((max_slowdown, _TIMES), (max_growth, _AMOUNTS)):
        checks += _ratios(old, new, metrics, limit) if limit is not None else ()
    return tuple(checks)


def _check_limits(drop: float | None, *ratios: float | None) -> None:
    if drop is not None and not 0 <= drop < math.inf:
        raise InputError(f"Expected max_drop to be at least 0. Received: {drop!r}. 0.005 is half a point of accuracy.")
    for ratio in ratios:
        if ratio is not None and not 0 < ratio < math.inf:
            raise InputError(f"Expected a ratio above 0. Received: {ratio!r}. 1.05 allows five percent more.")


def _shared(old: Result, new: Result) -> str:
    shared = sorted({row.metric for row in old} & {row.metric for row in new})
    return ", ".join(shared) or "they share none"


def _drop(old: Result, new: Result, metric: str, limit: float) -> Check:
    higher = metric_of(metric).better == "higher" or (metric_of(metric).better is None and "loss" not in metric)
    try:
        change = _change(old, new, metric)
    except (NotMeasuredError, NotComparableError) as error:
        return Check(metric, "inconclusive", f"{metric}: inconclusive: {error}")
    worst, best = (-change.low, -change.high) if higher else (change.high, change.low)
    message = f"{metric}: {_values(old, new, metric)}; worse by at most {max(worst, 0.0):.4g} (95 %), {limit:g} allowed"
    return Check(metric, *_verdict(worst <= limit, best > limit, message))


def _change(old: Result, new: Result, metric: str) -> Interval:
    """Return the interval of the difference; of accuracies without recorded predictions, the normal approximation."""
    try:
        return effect(old, new, metric, _CONFIDENCE)
    except NotMeasuredError:
        shares = [_share(result, metric) for result in (old, new)]
        if None in shares:
            raise
    (before, first), (after, second) = (share for share in shares if share is not None)
    error = math.sqrt(before * (1 - before) / first + after * (1 - after) / second)
    half_width = float(stats.norm.ppf(0.5 + _CONFIDENCE / 2)) * error
    change = after - before
    return Interval(change, change - half_width, change + half_width, _CONFIDENCE, min(first, second))


def _share(result: Result, metric: str) -> tuple[float, int] | None:
    """Return an accuracy and its number of samples; None unless one subject has both."""
    rows = [row for row in result.select(metric) if row.step is None]
    if metric != "accuracy" or len(rows) != 1:
        return None
    counts = [row.value for row in result.select("samples", rows[0].subject)]
    known = isinstance(rows[0].value, int | float) and counts and isinstance(counts[-1], int) and counts[-1] > 0
    return (float(rows[0].value), int(counts[-1])) if known else None  # type: ignore[arg-type]


def _ratios(old: Result, new: Result, metrics: tuple[str, ...], limit: float) -> Iterator[Check]:
    shared = [metric for metric in metrics if old.select(metric) and new.select(metric)]
    if not shared:
        raise InputError(
            f"Expected results with {' or '.join(metrics)}. Received: '{old.name}' and '{new.name}', which share none of these. "
            "Measure both, or leave the limit out."
        )
    for metric in shared:
        try:
            ratio = effect(old, new, metric, _CONFIDENCE)
        except (NotMeasuredError, NotComparableError) as error:
            yield Check(metric, "inconclusive", f"{metric}: inconclusive: {error}")
            continue
        spread = f" ({ratio.low:.3g} to {ratio.high:.3g})" if ratio.count > 1 else ""
        message = f"{metric}: {_values(old, new, metric)}; {ratio.estimate:.3g} times{spread}, {limit:g} allowed"
        yield Check(metric, *_verdict(ratio.high <= limit, ratio.low > limit, message))


def _verdict(within: bool, beyond: bool, message: str) -> tuple[Literal["passed", "failed", "inconclusive"], str]:
    if within:
        return "passed", message
    if beyond:
        return "failed", message
    advice = "Measure longer, or interleave both runs: kp.compare_training, kp.compare_exports"
    return "inconclusive", f"{message}: these data allow both. {advice}"


def _values(old: Result, new: Result, metric: str) -> str:
    return " -> ".join(format_value(metric, result.get(metric)) for result in (old, new))
