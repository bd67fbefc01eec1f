"""The effect of a precision on one metric: the difference or ratio of two results, with its interval."""

import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from keras_precision.comparison.intervals import (
    Interval,
    McNemar,
    difference_interval,
    mcnemar,
    pair_rounds,
    ratio_interval,
    separate_ratio_interval,
)
from keras_precision.core.errors import FileFormatError, NotComparableError, NotMeasuredError
from keras_precision.core.metrics import metric_of
from keras_precision.core.result import Result

__all__ = ["effect", "is_ratio", "is_time", "mcnemar_test", "pack_correct", "unpack_correct"]

_CONFIDENCE = 0.95
_DRIFT = 0.10  # change of a machine's speed between two sessions: other load, clock rate, temperature
_BLOCKS = 10
_TIMES = ("ms", "s", "us", "1/s")
_RATIOS = (*_TIMES, "MB", "B")


def is_time(metric: str) -> bool:
    """Return whether a metric is a time or a rate."""
    return metric_of(metric).unit in _TIMES


def is_ratio(metric: str) -> bool:
    """Return whether two values of a metric are compared by their ratio, and not by their difference."""
    return metric_of(metric).unit in _RATIOS


def effect(baseline: Result, other: Result, metric: str, confidence: float = _CONFIDENCE) -> Interval:
    """Return the ratio ``other / baseline`` of times, rates, memory and sizes, and the difference of other metrics.

    The confidence is that of intervals over seeds or samples; that of times is always 0.95.
    """
    if metric == "samples_per_second" and baseline.select("step_time_ms"):
        slowdown = effect(baseline, other, "step_time_ms")
        return slowdown.inverse()
    if is_time(metric):
        return _time_ratio(baseline, other, metric)
    if metric == "accuracy" and baseline.select("answers_right") and other.select("answers_right"):
        before, after = _correct_predictions(baseline, other)
        return difference_interval(before.astype(float).tolist(), after.astype(float).tolist(), confidence)
    if metric == "peak_memory_mb":
        _check_same_source(baseline, other, metric)
    return _over_seeds(baseline, other, metric, confidence)


def mcnemar_test(baseline: Result, other: Result) -> McNemar:
    """Return McNemar's test of which samples two results predict correctly."""
    return mcnemar(*_correct_predictions(baseline, other))


def pack_correct(right: npt.NDArray[np.bool_]) -> str:
    """Return booleans of shape (n,), one per correctly predicted sample, as text: the count, a colon, hexadecimal bits.

    Example:
        >>> pack_correct(np.array([True, False, False, True, True]))
        '5:98'
    """
    return f"{right.size}:{np.packbits(right).tobytes().hex()}"


@functools.lru_cache(maxsize=64)
def unpack_correct(text: str) -> npt.NDArray[np.bool_]:
    """Return the booleans, of shape (n,), from the text that ``pack_answers`` returns.

    Example:
        >>> unpack_correct("5:98").tolist()
        [True, False, False, True, True]
    """
    count, _, digits = text.partition(":")
    try:
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))[: int(count)]
    except ValueError as error:
        raise FileFormatError(f"Expected correct predictions as 'count:digits'. Received: {text[:40]!r}.") from error
    return bits.astype(bool)


def _time_ratio(baseline: Result, other: Result, metric: str) -> Interval:
    if baseline.environment.machine != other.environment.machine:
        raise NotComparableError(
            f"Expected times of one machine. Received: '{metric}' of '{baseline.name}' and of '{other.name}', measured on "
            "two. Measure both on one machine."
        )
    session = baseline.get("session")
    if session is not None and session == other.get("session"):
        return _interleaved_ratio(baseline, other, metric)
    return separate_ratio_interval(_block_times(baseline, metric), _block_times(other, metric), drift=_DRIFT)


def _interleaved_ratio(baseline: Result, other: Result, metric: str) -> Interval:
    """Return the interval over pairs of processes, because processes of one program differ a little in speed."""
    ratios = []
    for process in dict.fromkeys(row.subject for row in baseline.select(metric) if row.step is not None):
        before, after = (_by_step(result, metric, process) for result in (baseline, other))
        rounds = sorted(before.keys() & after.keys())
        times_before, times_after = (pair_rounds([times[number] for number in rounds]) for times in (before, after))
        if times_before:
            ratios.append(float(np.median(np.asarray(times_after) / np.asarray(times_before))))
    if len(ratios) < 2:
        raise NotMeasuredError(
            f"Expected interleaved rounds of at least two processes. Received: {len(ratios)} of '{other.name}'. Allow more time."
        )
    return ratio_interval([1.0] * len(ratios), ratios)


def _block_times(result: Result, metric: str) -> list[float]:
    """Return one median per process or per block of steps, because neighbouring steps are not independent."""
    by_process: dict[str, list[float]] = {}
    for row in result.select(metric):
        if row.step is not None and row.subject.startswith("process ") and isinstance(row.value, int | float):
            by_process.setdefault(row.subject, []).append(float(row.value))
    if len(by_process) > 1:
        return [float(np.median(times)) for times in by_process.values()]
    times = list(_by_step(result, metric, "step").values())
    if len(times) < 2 * _BLOCKS:
        raise NotMeasuredError(
            f"Expected at least {2 * _BLOCKS} timed steps. Received: {len(times)} of '{result.name}'. Train longer."
        )
    return [float(np.median(block)) for block in np.array_split(np.asarray(times), _BLOCKS)]


def _over_seeds(baseline: Result, other: Result, metric: str, confidence: float) -> Interval:
    before, after = (_by_step(result, metric, "seed") for result in (baseline, other))
    ratio = is_ratio(metric)
    if not before or not after:
        first, second = baseline.value(metric), other.value(metric)
        if metric != "size_bytes":
            raise NotMeasuredError(
                f"Expected '{metric}' of several seeds or samples. Received: one value, which has no spread. Measure several."
            )
        return Interval(second / first, second / first, second / first, 1.0, 1)
    seeds = sorted(before.keys() & after.keys())
    if len(seeds) < 2:
        raise NotMeasuredError(
            f"Expected '{metric}' of at least two seeds. Received: {len(seeds)}, which has no spread. Use seeds=(0, 1, 2)."
        )
    pair = [before[seed] for seed in seeds], [after[seed] for seed in seeds]
    return ratio_interval(*pair, confidence) if ratio else difference_interval(*pair, confidence)


def _by_step(result: Result, metric: str, subject: str) -> Mapping[int, float]:
    rows = result.select(metric, subject)
    return {row.step: float(row.value) for row in rows if row.step is not None and isinstance(row.value, int | float)}


def _check_same_source(baseline: Result, other: Result, metric: str) -> None:
    sources = [result.environment.sources.get(metric, "") for result in (baseline, other)]
    if sources[0] != sources[1]:
        raise NotComparableError(
            f"Expected values of one source. Received: '{metric}' of '{baseline.name}' from {sources[0] or 'an unknown one'}, "
            f"and of '{other.name}' from {sources[1] or 'an unknown one'}. Measure both on one backend and machine."
        )


def _correct_predictions(baseline: Result, other: Result) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    return unpack_correct(str(baseline.value("answers_right"))), unpack_correct(str(other.value("answers_right")))
