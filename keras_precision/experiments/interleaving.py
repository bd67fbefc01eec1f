"""Interleaving: step times of resident processes that train in alternating blocks (ABBA) until intervals are narrow."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from keras_precision.comparison.intervals import pair_rounds, ratio_interval
from keras_precision.core.errors import DataError, WorkerError

__all__ = ["QUANTILE", "InterleavedTimes", "TimedRun", "interleave", "is_resolved"]

QUANTILE = 0.1
"""Of the steps of a block. Other load only adds time, so the faster steps are those of the program. On two busy
cores, ratios of medians scattered three times as much as those of this quantile (A against A)."""

_WARMUP_STEPS = 10
_BLOCK_MS = 40.0  # long enough to drop the first step, which runs with cold caches
_MIN_STEPS, _MAX_STEPS = 4, 200
_MIN_ROUNDS = 12
_CHECK_INTERVAL = 4


class TimedRun(Protocol):
    """A process that trains, or anything else whose steps can be timed repeatedly."""

    def ask(self, method: str, *args: Any, deadline: float | None = None) -> Any:
        """Return the milliseconds of so many steps."""

    def close(self) -> None:
        """End it."""


@dataclass
class InterleavedTimes:
    """Times of one set of processes, in milliseconds.

    Attributes:
        rounds: Name to one quantile per round, in order.
        steps: Name to the times of all steps.
        failed: Name to the error message.
    """

    rounds: dict[str, list[float]] = field(default_factory=dict)
    steps: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def is_resolved(baseline: Sequence[float], others: Sequence[Sequence[float]], resolution: float) -> bool:
    """Return whether the interval of every ratio to the baseline is narrow enough: 0.02 is two percent to either side.

    The inputs are one time per round, at least four. Only the width of the intervals decides, never where they lie: rounds
    that went on until a difference shows would show one in the end where there is none.

    Example:
        >>> is_resolved([1.0] * 8, [[2.0] * 8], 0.02)
        True
    """
    for other in others:
        interval = ratio_interval(pair_rounds(baseline), pair_rounds(other))
        if math.log(interval.high / interval.low) / 2 > math.log1p(resolution):
            return False
    return True


def interleave(
    workers: Mapping[str, TimedRun], *, resolution: float, seconds: float, deadline: float | None = None
) -> InterleavedTimes:
    """Time resident runs, the baseline first, in alternating blocks; return the times of the runs that lasted.

    It ends when intervals are as narrow as ``resolution``, ``seconds`` after warm-up, or at ``deadline`` of ``time.monotonic``.
    """
    measured, running = InterleavedTimes(), dict(workers)
    counts: dict[str, int] = {}
    for name in workers:
        times = _ask(measured, running, name, "train_interleaved", _WARMUP_STEPS, deadline)
        if times:
            typical = float(np.median(times[len(times) // 2 :]))
            counts[name] = 1 + min(_MAX_STEPS, max(_MIN_STEPS, math.ceil(_BLOCK_MS / max(typical, 1e-3))))
    baseline = next(iter(workers))
    end = min(time.monotonic() + seconds, math.inf if deadline is None else deadline)
    number = 0
    while baseline in running and (len(running) > 1 or len(workers) == 1):
        for name in list(running) if number % 2 == 0 else list(reversed(running)):
            _run_block(measured, running, name, counts[name], deadline)
        number += 1
        late = time.monotonic() >= end and number >= 4
        if late or (
            number >= _MIN_ROUNDS and number % _CHECK_INTERVAL == 0 and _all_resolved(measured, running, resolution)
        ):
            break
    for name in list(running):
        _ask(measured, running, name, "stop", None, deadline)
    return measured


def _run_block(
    measured: InterleavedTimes, running: dict[str, TimedRun], name: str, count: int, deadline: float | None
) -> None:
    times = _ask(measured, running, name, "block", count, deadline)
    if times:
        warm = times[1:]
        measured.rounds.setdefault(name, []).append(float(np.quantile(warm, QUANTILE)))
        measured.steps.setdefault(name, []).extend(warm)


def _all_resolved(measured: InterleavedTimes, running: Mapping[str, TimedRun], resolution: float) -> bool:
    baseline, *others = (measured.rounds[name] for name in running)
    return is_resolved(baseline, others, resolution)


def _ask(
    measured: InterleavedTimes,
    running: dict[str, TimedRun],
    name: str,
    request: str,
    count: int | None,
    deadline: float | None,
) -> list[float]:
    """Return the times of a run; one that fails is excluded from then on."""
    try:
        times = running[name].ask(request, *([] if count is None else [count]), deadline=deadline)
    except (WorkerError, DataError) as error:
        measured.failed[name] = str(error)
        running.pop(name).close()
        return []
    return list(times or [])
