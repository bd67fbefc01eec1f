"""check_results: has a new result become worse than an old one? For the tests of a team's own project."""

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
from keras_precision.core.table import formatted

__all__ = ["Check", "check_results"]

_CONFIDENCE = 0.9  # of an interval with two sides: each side is a test at 5 %
_WORTH = ("accuracy", "val_accuracy")
_TIMES = ("step_time_ms", "latency_ms")
_AMOUNTS = ("size_bytes", "peak_memory_mb")


@dataclass(frozen=True)
class Check:
    """What became of one limit.

    Attributes:
        metric: What was limited.
        verdict: ``"passed"`` (worse by more than the limit can be ruled out), ``"failed"`` (it is worse by more), or
            ``"not shown"`` (these data allow both).
        message: The figures, and the reason.
    """

    metric: str
    verdict: Literal["passed", "failed", "not shown"]
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
    """Hold a new result against an old one, with tests of non-inferiority instead of raw thresholds.

    A limit is passed where the whole interval of the difference (one-sided, 95 %) lies within it: that the two
    figures happen to be near each other is not enough.

    Args:
        old: What was good enough.
        new: What is to be judged.
        max_drop: How much worse the metric may be, in its own unit: 0.005 is half a point of accuracy.
        max_slowdown: How many times as long a step or a call may take, such as 1.05.
        max_growth: How many times as large a file, or as high a peak of memory, may be.
        metric: What ``max_drop`` is about; accuracy, where None.

    Returns:
        A check for each limit and each figure that it is about.

    Raises:
        InputError: No limit was given, one is out of range, or neither result has what it is about.

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
        name = metric or next((each for each in _WORTH if old.select(each) and new.select(each)), None)
        if name is None or not (old.select(name) and new.select(name)):
            raise InputError(
                f"Expected a metric that '{old.name}' and '{new.name}' both hold. Received: {metric or 'none'}. Name one: {_both(old, new)}."
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


def _both(old: Result, new: Result) -> str:
    shared = sorted({row.metric for row in old} & {row.metric for row in new})
    return ", ".join(shared) or "they share none"


def _drop(old: Result, new: Result, metric: str, limit: float) -> Check:
    higher = metric_of(metric).better == "higher" or (metric_of(metric).better is None and "loss" not in metric)
    try:
        change = _change(old, new, metric)
    except (NotMeasuredError, NotComparableError) as error:
        return Check(metric, "not shown", f"{metric}: not shown: {error}")
    worst, best = (-change.low, -change.high) if higher else (change.high, change.low)
    words = f"{metric}: {_figures(old, new, metric)}; worse by at most {max(worst, 0.0):.4g} (95 %), {limit:g} allowed"
    return Check(metric, *_judged(worst <= limit, best > limit, words))


def _change(old: Result, new: Result, metric: str) -> Interval:
    """The difference; of accuracies whose single answers nobody kept, by the numbers of samples."""
    try:
        return effect(old, new, metric, _CONFIDENCE)
    except NotMeasuredError:
        shares = [_share(result, metric) for result in (old, new)]
        if None in shares:
            raise
    (before, first), (after, second) = (share for share in shares if share is not None)
    error = math.sqrt(before * (1 - before) / first + after * (1 - after) / second)
    reach = float(stats.norm.ppf(0.5 + _CONFIDENCE / 2)) * error
    middle = after - before
    return Interval(middle, middle - reach, middle + reach, _CONFIDENCE, min(first, second))


def _share(result: Result, metric: str) -> tuple[float, int] | None:
    """A share of samples, and their number, where both were measured of the same thing."""
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
            f"Expected results that hold {' or '.join(metrics)}. Received: '{old.name}' and '{new.name}', which share none of these."
        )
    for metric in shared:
        try:
            ratio = effect(old, new, metric, _CONFIDENCE)
        except (NotMeasuredError, NotComparableError) as error:
            yield Check(metric, "not shown", f"{metric}: not shown: {error}")
            continue
        spread = f" ({ratio.low:.3g} to {ratio.high:.3g})" if ratio.count > 1 else ""
        words = f"{metric}: {_figures(old, new, metric)}; {ratio.estimate:.3g} times{spread}, {limit:g} allowed"
        yield Check(metric, *_judged(ratio.high <= limit, ratio.low > limit, words))


def _judged(within: bool, beyond: bool, words: str) -> tuple[Literal["passed", "failed", "not shown"], str]:
    if within:
        return "passed", words
    if beyond:
        return "failed", words
    return (
        "not shown",
        f"{words}: these data allow both. Measure longer, or let both take turns: kp.compare_training, kp.compare_exports",
    )


def _figures(old: Result, new: Result, metric: str) -> str:
    return " -> ".join(formatted(metric, result.get(metric)) for result in (old, new))
