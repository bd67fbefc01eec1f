"""Contrast: one figure of two results, with the interval that their processes, seeds or answers allow."""

import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from keras_precision.comparison.intervals import (
    Interval,
    McNemar,
    difference_interval,
    folded,
    mcnemar,
    ratio_interval,
    separate_ratio_interval,
)
from keras_precision.core.errors import FileFormatError, NotComparableError, NotMeasuredError
from keras_precision.core.metrics import metric_of
from keras_precision.core.result import Result

__all__ = ["answers_test", "effect", "is_ratio", "is_time", "pack_answers", "unpack_answers"]

_CONFIDENCE = 0.95
_DRIFT = 0.10  # between two sessions on one machine: what else it did, its clock, its temperature
_GROUPS = 10
_TIMES = ("ms", "s", "us", "1/s")
_RATIOS = (*_TIMES, "MB", "B")


def is_time(metric: str) -> bool:
    """Tell whether a metric is a time, or a rate."""
    return metric_of(metric).unit in _TIMES


def is_ratio(metric: str) -> bool:
    """Tell whether two figures of a metric are compared by their ratio, and not by their difference."""
    return metric_of(metric).unit in _RATIOS


def effect(baseline: Result, other: Result, metric: str, confidence: float = _CONFIDENCE) -> Interval:
    """Return how much a figure of one result differs from that of another.

    Args:
        baseline: The one.
        other: The other.
        metric: The metric.
        confidence: Of intervals over seeds or answers; that of times is 0.95.

    Returns:
        The ratio ``other / baseline`` of times, rates, memory and sizes; the difference of the rest.

    Raises:
        NotComparableError: The two were not got alike.
        NotMeasuredError: One of them does not have it, or too few of it.
    """
    if metric == "samples_per_second" and baseline.select("step_time_ms"):
        slower = effect(baseline, other, "step_time_ms")
        return Interval(1 / slower.estimate, 1 / slower.high, 1 / slower.low, slower.confidence, slower.count)
    if is_time(metric):
        return _time_ratio(baseline, other, metric)
    if metric == "accuracy" and baseline.select("answers_right") and other.select("answers_right"):
        before, after = _answers(baseline, other)
        return difference_interval(before.astype(float).tolist(), after.astype(float).tolist(), confidence)
    if metric == "peak_memory_mb":
        _same_source(baseline, other, metric)
    return _over_seeds(baseline, other, metric, confidence)


def answers_test(baseline: Result, other: Result) -> McNemar:
    """Return McNemar's test of the answers of two results to the same samples.

    Raises:
        DataError: They answered other samples.
        NotMeasuredError: One of them does not have its answers.
    """
    return mcnemar(*_answers(baseline, other))


def pack_answers(right: npt.NDArray[np.bool_]) -> str:
    """Return which samples were answered right, as a text.

    Args:
        right: Shape (n,).

    Returns:
        The count, a colon, and a hexadecimal digit for every four samples.

    Example:
        >>> pack_answers(np.array([True, False, False, True, True]))
        '5:98'
    """
    return f"{right.size}:{np.packbits(right).tobytes().hex()}"


@functools.lru_cache(maxsize=64)
def unpack_answers(text: str) -> npt.NDArray[np.bool_]:
    """Return what ``pack_answers`` was given.

    Args:
        text: What it returned.

    Returns:
        Shape (n,).

    Raises:
        FileFormatError: It is no such text.

    Example:
        >>> unpack_answers("5:98").tolist()
        [True, False, False, True, True]
    """
    count, _, digits = text.partition(":")
    try:
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))[: int(count)]
    except ValueError as error:
        raise FileFormatError(f"Expected answers as 'count:digits'. Received: {text[:40]!r}.") from error
    return bits.astype(bool)


def _time_ratio(baseline: Result, other: Result, metric: str) -> Interval:
    if baseline.environment.machine != other.environment.machine:
        raise NotComparableError(
            f"Expected times of one machine. Received: '{metric}' of '{baseline.name}' and of '{other.name}', which were "
            "measured on two. Measure both on one machine."
        )
    session = baseline.get("session")
    if session is not None and session == other.get("session"):
        return _ratio_in_turns(baseline, other, metric)
    groups = [_groups(result, metric) for result in (baseline, other)]
    return separate_ratio_interval(groups[0], groups[1], drift=_DRIFT)


def _ratio_in_turns(baseline: Result, other: Result, metric: str) -> Interval:
    """The interval over pairs of processes: each is a little faster or slower than another of the same program."""
    ratios = []
    for subject in dict.fromkeys(row.subject for row in baseline.select(metric) if row.step is not None):
        before, after = (_by_step(result, metric, subject) for result in (baseline, other))
        rounds = sorted(before.keys() & after.keys())
        pairs = [folded([times[number] for number in rounds]) for times in (before, after)]
        if pairs[0]:
            ratios.append(float(np.median(np.asarray(pairs[1]) / np.asarray(pairs[0]))))
    if len(ratios) < 2:
        raise NotMeasuredError(
            f"Expected turns of at least two processes. Received: {len(ratios)} of '{other.name}'. Allow more time."
        )
    return ratio_interval([1.0] * len(ratios), ratios)


def _groups(result: Result, metric: str) -> list[float]:
    """Independent figures of a run that was not measured in turns: neighbouring steps are not independent."""
    by_process: dict[str, list[float]] = {}
    for row in result.select(metric):
        if row.step is not None and row.subject.startswith("process ") and isinstance(row.value, int | float):
            by_process.setdefault(row.subject, []).append(float(row.value))
    if len(by_process) > 1:
        return [float(np.median(values)) for values in by_process.values()]
    values = list(_by_step(result, metric, "step").values())
    if len(values) < 2 * _GROUPS:
        raise NotMeasuredError(
            f"Expected at least {2 * _GROUPS} steps that were timed. Received: {len(values)} of '{result.name}'. Train longer."
        )
    return [float(np.median(group)) for group in np.array_split(np.asarray(values), _GROUPS)]


def _over_seeds(baseline: Result, other: Result, metric: str, confidence: float) -> Interval:
    before, after = (_by_step(result, metric, "seed") for result in (baseline, other))
    ratio = is_ratio(metric)
    if not before or not after:
        first, second = baseline.value(metric), other.value(metric)
        if metric != "size_bytes":
            raise NotMeasuredError(
                f"Expected '{metric}' of several seeds or answers. Received: one figure, which says nothing of its spread."
            )
        return Interval(second / first, second / first, second / first, 1.0, 1)
    seeds = sorted(before.keys() & after.keys())
    if len(seeds) < 2:
        raise NotMeasuredError(
            f"Expected '{metric}' of at least two seeds. Received: {len(seeds)}, which says nothing of its spread. Use seeds=(0, 1, 2)."
        )
    pair = [before[seed] for seed in seeds], [after[seed] for seed in seeds]
    return ratio_interval(*pair, confidence) if ratio else difference_interval(*pair, confidence)


def _by_step(result: Result, metric: str, subject: str) -> Mapping[int, float]:
    rows = result.select(metric, subject)
    return {row.step: float(row.value) for row in rows if row.step is not None and isinstance(row.value, int | float)}


def _same_source(baseline: Result, other: Result, metric: str) -> None:
    sources = [result.environment.sources.get(metric, "") for result in (baseline, other)]
    if sources[0] != sources[1]:
        raise NotComparableError(
            f"Expected figures of one source. Received: '{metric}' of '{baseline.name}' from {sources[0] or 'an unknown one'}, "
            f"and of '{other.name}' from {sources[1] or 'an unknown one'}. Measure both on one backend and machine."
        )


def _answers(baseline: Result, other: Result) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    return unpack_answers(str(baseline.value("answers_right"))), unpack_answers(str(other.value("answers_right")))
