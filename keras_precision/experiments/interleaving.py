"""Turns: step times of resident processes that train by turns, forth and back, until they can be told apart."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from keras_precision.comparison.intervals import folded, ratio_interval
from keras_precision.core.errors import DataError, WorkerError

__all__ = ["QUANTILE", "Runner", "Turns", "settled", "take_turns"]

QUANTILE = 0.1
"""Of the steps of a turn. What else a machine does only adds time: the faster steps are what the program takes. On
two busy cores, ratios of medians scattered three times as much as those of this quantile (A against A)."""

_WARMUP_STEPS = 10
_TURN_MS = 40.0  # long enough that the first step, which finds cold caches, does not count
_MIN_STEPS, _MAX_STEPS = 4, 200
_MIN_ROUNDS = 12
_CHECK_EACH = 4


class Runner(Protocol):
    """What takes turns: a process that trains, or anything else that can be called again and again."""

    def ask(self, method: str, *args: Any, deadline: float | None = None) -> Any:
        """Return the milliseconds of so many steps."""

    def close(self) -> None:
        """End it."""


@dataclass
class Turns:
    """What the turns of one set of processes gave.

    Attributes:
        rounds: Name to one figure a round, in order, in milliseconds.
        steps: Name to the times of all steps.
        failed: Name to what went wrong.
    """

    rounds: dict[str, list[float]] = field(default_factory=dict)
    steps: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def settled(baseline: Sequence[float], others: Sequence[Sequence[float]], resolution: float) -> bool:
    """Tell whether enough rounds were measured.

    It looks at the width of the intervals alone, and never at where they lie: rounds that go on until a
    difference shows would show one in the end where there is none.

    Args:
        baseline: One time a round: at least four.
        others: The same of each other run.
        resolution: How far an interval may reach to each side of its estimate: 0.02 is two percent.

    Returns:
        Whether each interval of a ratio to the baseline is that narrow.

    Example:
        >>> settled([1.0] * 8, [[2.0] * 8], 0.02)
        True
    """
    for other in others:
        interval = ratio_interval(folded(baseline), folded(other))
        if math.log(interval.high / interval.low) / 2 > math.log1p(resolution):
            return False
    return True


def take_turns(
    workers: Mapping[str, Runner], *, resolution: float, seconds: float, deadline: float | None = None
) -> Turns:
    """Let resident runs take turns.

    Args:
        workers: Name to worker, the baseline first; each serves a ``Run``, or what is timed as one is.
        resolution: When the intervals over rounds are narrow enough, as for ``settled``.
        seconds: How long to go on at the most, once all are warm.
        deadline: When all must end, as ``time.monotonic`` counts.

    Returns:
        What was measured of the runs that lasted.
    """
    turns, running = Turns(), dict(workers)
    counts: dict[str, int] = {}
    for name in workers:
        times = _asked(turns, running, name, "take_turns", _WARMUP_STEPS, deadline)
        if times:
            typical = float(np.median(times[len(times) // 2 :]))
            counts[name] = 1 + min(_MAX_STEPS, max(_MIN_STEPS, math.ceil(_TURN_MS / max(typical, 1e-3))))
    baseline = next(iter(workers))
    end = min(time.monotonic() + seconds, math.inf if deadline is None else deadline)
    number = 0
    while baseline in running and (len(running) > 1 or len(workers) == 1):
        for name in list(running) if number % 2 == 0 else list(reversed(running)):
            _turn(turns, running, name, counts[name], deadline)
        number += 1
        late = time.monotonic() >= end and number >= 4
        if late or (number >= _MIN_ROUNDS and number % _CHECK_EACH == 0 and _enough(turns, running, resolution)):
            break
    for name in list(running):
        _asked(turns, running, name, "stop", None, deadline)
    return turns


def _turn(turns: Turns, running: dict[str, Runner], name: str, count: int, deadline: float | None) -> None:
    times = _asked(turns, running, name, "turn", count, deadline)
    if times:
        kept = times[1:]
        turns.rounds.setdefault(name, []).append(float(np.quantile(kept, QUANTILE)))
        turns.steps.setdefault(name, []).extend(kept)


def _enough(turns: Turns, running: Mapping[str, Runner], resolution: float) -> bool:
    baseline, *others = (turns.rounds[name] for name in running)
    return settled(baseline, others, resolution)


def _asked(
    turns: Turns, running: dict[str, Runner], name: str, request: str, count: int | None, deadline: float | None
) -> list[float]:
    """What a run answers; one that fails is left out from then on."""
    try:
        answer = running[name].ask(request, *([] if count is None else [count]), deadline=deadline)
    except (WorkerError, DataError) as error:
        turns.failed[name] = str(error)
        running.pop(name).close()
        return []
    return list(answer or [])
