"""find_max_batch_size: the largest batch that a model can be trained with, in each precision."""

import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

from keras_precision.core.environment import Environment
from keras_precision.core.errors import InputError, WorkerError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.progress import progress
from keras_precision.experiments.batch_trial import OVER_LIMIT, Trial
from keras_precision.experiments.channel import Channel
from keras_precision.experiments.compare_training import check_runs
from keras_precision.experiments.series import keras_backend
from keras_precision.experiments.task import check_build
from keras_precision.experiments.worker import Worker, packed

__all__ = ["find_max_batch_size"]

_SHARE = 0.8  # of the memory that is free
_NARROW = 0.03  # between the largest batch that fits and the smallest that does not
_FIRST = 8
_TIMED_STEPS = 5
_MOST_TRIALS = 12  # in fresh processes
_SURVEYED = (0.35, 0.7)  # of what the first process leads to: far enough apart for a slope, and below the limit
_SIGNS = (
    "RESOURCE_EXHAUSTED", "ResourceExhausted", "out of memory", "OutOfMemory", "OOM", "can't allocate", "MemoryError",
    "bad_alloc", "SIGKILL", f"exit code {OVER_LIMIT}",
)  # fmt: skip
_NO_MEMORY = "one training step in a process of its own, under the limit"


@dataclass
class _Search:
    """What is known of one precision.

    Attributes:
        points: Batch size to peak bytes, of the steps that fitted.
        fresh: Those of them that had a process of their own: one that took smaller steps before holds what those left.
        plan: What was planned before anything was run.
        predicted: The batch that the line through the points leads to.
        trials: Steps in fresh processes.
        times: Of the steps at the largest batch.
    """

    points: dict[int, float] = field(default_factory=dict)
    fresh: dict[int, float] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    predicted: int | None = None
    fits: int = 0
    fails: int | None = None
    peak: float = 0.0
    trials: int = 0
    times: list[float] = field(default_factory=list)


def find_max_batch_size(
    build: Any,
    make_batch: Callable[[int], Any] | str,
    precisions: Sequence[str | PrecisionPlan] | Mapping[str, str | PrecisionPlan] = (
        "float32",
        "mixed_bfloat16",
        "mixed_float16",
    ),
    *,
    memory_limit: int | None = None,
    margin: float = 0.05,
    max_batch: int = 65536,
    verbose: bool | None = None,
) -> Result:
    """Find the largest batch that a model can be trained with in a limit of memory, in each precision.

    One process doubles the batch while the next one is sure to fit, and two fresh ones take steps of a third and two thirds
    of what that leads to. A line through their peaks, ``peak = a + c * batch``, predicts the largest; more of them verify it,
    and bisect what is left between a batch that fits and one that does not, to 3 %. A step that needs too much ends its own
    process, and no other one.

    Args:
        build: A function that returns a compiled model, ``"module:function"``, or the path of a ``.keras`` file.
        make_batch: Given a count, returns ``(x, y)`` of so many samples; a function, or ``"module:function"``.
        precisions: Policies or training plans, or run names to these.
        memory_limit: Bytes that the process may hold in all, on a processor; on an accelerator, that its allocator
            may. None: 80 % of what is free, on a processor; on an accelerator, what its allocator gives.
        margin: Share of the limit that is left free.
        max_batch: Where the search ends at the latest.
        verbose: Whether to draw a progress bar; None: on a terminal.

    Returns:
        A result whose subjects are the precisions: ``largest_batch``, ``predicted_batch``, ``trials``,
        ``samples_per_second`` and ``peak_memory_mb`` at the largest batch, ``sample_mb`` (the slope), and what was
        planned before: ``weights_mb``, ``gradients_mb``, ``optimizer_mb``, ``planned_sample_mb``, ``planned_memory_mb``.

    Raises:
        InputError: An argument cannot be used.
        DataError: ``make_batch`` does not return as many samples as it was asked for.
        WorkerError: A step failed of something else than memory.

    Example:
        >>> find_max_batch_size("builds:small", "builds:batch", ("float16",))
        Traceback (most recent call last):
            ...
        keras_precision.core.errors.UnknownPrecisionError: Expected the precision of 'float16' to be one of the training precisions float32, mixed_bfloat16, mixed_float16. Received: 'float16'. 'float16' is a deployment precision: it is for kp.export_tflite.
    """
    runs = check_runs(precisions, least=1)
    if not 0 <= margin < 1 or max_batch < 1 or (memory_limit is not None and memory_limit <= 0):
        raise InputError(
            f"Expected 0 <= margin < 1, max_batch >= 1 and memory_limit > 0. Received: {margin}, {max_batch} and {memory_limit}."
        )
    given = packed((check_build(build), make_batch), "build and make_batch")
    found: dict[str, _Search] = {}
    with progress("searching", "precisions", len(runs), verbose=verbose) as advance:
        for name, precision in runs.items():
            found[name] = _Finder(given, name, precision, memory_limit, margin, max_batch).find()
            advance(1)
    return _result(found)


class _Finder:
    """The search in one precision."""

    def __init__(
        self, given: bytes, name: str, precision: str | PrecisionPlan, limit: int | None, margin: float, most: int
    ) -> None:
        self._serve = packed(_Serve(given, precision, limit), "the trial")
        self._name, self._most, self._backend = name, most, keras_backend()
        self._limit, self._margin = limit, margin
        self._search = _Search()

    def find(self) -> _Search:
        """Return what was found."""
        search = self._search
        self._double()
        self._survey()
        self._verify()
        return search

    @property
    def _budget(self) -> float:
        """Bytes that a step may reach; infinite where the allocator alone decides."""
        return math.inf if self._limit is None else self._limit * (1 - self._margin)

    def _double(self) -> None:
        """Measure small batches in one process, each twice the one before, while the next one is sure to fit."""
        search = self._search
        with Worker(self._serve, self._name, self._backend) as worker:
            search.plan = worker.ask("plan")
            if self._limit is None and search.plan["on_processor"]:
                self._limit = int(search.plan["held"] + _SHARE * psutil.virtual_memory().available)
            count = min(_FIRST, self._most)
            while count <= self._most:
                peak = _fitting(lambda: worker.ask("step", count))  # noqa: B023 - called at once
                if peak is None or peak[0] > self._budget:
                    search.fails = count
                    break
                search.points[count], search.fits = peak[0], count
                if 2 * count > self._most or self._line(2 * count) > self._budget:
                    break
                count *= 2

    def _survey(self) -> None:
        """Measure two batches below the limit in processes of their own, and predict anew from these."""
        search, reached = self._search, self._predicted()
        if search.points and reached < self._most and not math.isinf(self._budget):
            for count in sorted({math.floor(share * reached) for share in _SURVEYED} - {0}):
                self._try(count)
        search.predicted = self._predicted()

    def _try(self, count: int) -> None:
        """Take steps in a fresh process, and note whether there was enough memory."""
        search = self._search
        search.trials += 1
        with Worker(self._serve, self._name, self._backend) as worker:
            told = _fitting(lambda: worker.ask("step", count, _TIMED_STEPS))
        if told is not None:
            search.points[count] = search.fresh[count] = told[0]
        if told is None or told[0] > self._budget:
            search.fails = count
        elif count >= search.fits:
            search.fits, search.peak, search.times = count, *told

    def _predicted(self) -> int:
        """Where the line meets the budget."""
        search = self._search
        a, c = _best_line(search)
        if not search.points:
            return max(1, (search.fails or 2) // 2)
        if math.isinf(self._budget):
            return search.fails - 1 if search.fails else self._most
        reached = math.floor((self._budget - a) / c) if c > 0 else 2 * max(search.points)
        return max(1, min(self._most, reached))

    def _line(self, count: int) -> float:
        a, c = _line(self._search.points)
        return a + c * count if len(self._search.points) > 1 else 0.0

    def _verify(self) -> None:
        """Try the prediction in fresh processes, and bisect what is left."""
        search = self._search
        count = int(search.predicted or 1)
        while search.trials < _MOST_TRIALS:
            self._try(count)
            following = self._following()
            if following is None:
                return
            count = following

    def _following(self) -> int | None:
        """The next batch to try; None where it is known closely enough, and was tried."""
        search = self._search
        if search.fails is None:
            if search.fits >= self._most:
                return None
            return min(self._most, max(search.fits + 1, math.ceil(search.fits * (1 + _NARROW)), self._predicted()))
        if search.fails - search.fits <= max(1, math.ceil(_NARROW * search.fits)):
            return None if search.times or not search.fits else search.fits
        again = self._predicted()  # the line has more points than it had
        step = max(1, math.floor(_NARROW * search.fits))
        inside = search.fits + step <= again <= search.fails - step
        return again if inside else (search.fits + search.fails) // 2


@dataclass(frozen=True)
class _Serve:
    """Makes a trial in a child."""

    given: bytes
    precision: str | PrecisionPlan
    limit: int | None

    def __call__(self, channel: Channel) -> Trial:
        build, make_batch = pickle.loads(self.given)
        return Trial(channel, build, make_batch, self.precision, self.limit)


def _fitting(ask: Callable[[], Any]) -> tuple[float, list[float]] | None:
    """What a step told; None where there was not enough memory for it."""
    try:
        peak, times = ask()
    except WorkerError as error:
        if any(sign in str(error) for sign in _SIGNS):
            return None
        raise
    return float(peak), list(times)


def _line(points: Mapping[int, float]) -> tuple[float, float]:
    """``a`` and ``c`` of ``peak = a + c * batch``, by the two largest batches: small ones share what stays constant."""
    if len(points) < 2:
        return max(points.values(), default=0.0), 0.0
    (low, first), (high, second) = sorted(points.items())[-2:]
    slope = (second - first) / (high - low)
    return second - slope * high, slope


def _best_line(search: _Search) -> tuple[float, float]:
    """``a`` and ``c`` by least squares of the fresh processes, which lie near the limit; before there are two, by the others."""
    if len(search.fresh) < 2:
        return _line(search.points)
    c, a = np.polyfit(list(search.fresh), list(search.fresh.values()), 1)
    return float(a), float(c)


def _result(found: Mapping[str, _Search]) -> Result:
    rows = [row for name, search in found.items() for row in _rows(name, search)]
    notes = []
    for name, search in found.items():
        if search.fits and search.fails is None:
            notes.append(f"{name}: the search ended at max_batch, and not at the limit of memory")
        if not search.fits:
            notes.append(f"{name}: no batch fits")
    first = next(iter(found.values())).plan
    sources = {"peak_memory_mb": str(first.get("source", "")), "largest_batch": _NO_MEMORY}
    return Result("largest batch", tuple(rows), Environment.here(sources=sources), notes=tuple(notes))


def _rows(name: str, search: _Search) -> Iterator[Measurement]:
    median = float(np.median(search.times)) if search.times else None
    yield Measurement(name, "largest_batch", search.fits)
    yield Measurement(name, "predicted_batch", search.predicted)
    yield Measurement(name, "trials", search.trials)
    yield Measurement(name, "samples_per_second", search.fits * 1e3 / median if median else None)
    yield Measurement(name, "peak_memory_mb", search.peak / 1e6 if search.times else None)
    yield Measurement(name, "sample_mb", _best_line(search)[1] / 1e6 if len(search.points) > 1 else None)
    for kind in ("weights", "gradients", "optimizer"):
        yield Measurement(name, f"{kind}_mb", search.plan[kind] / 1e6)
    activations = search.plan["activations"]
    held = sum(search.plan[kind] for kind in ("weights", "gradients", "optimizer"))
    yield Measurement(name, "planned_sample_mb", None if activations is None else activations / 1e6)
    yield Measurement(
        name, "planned_memory_mb", None if activations is None else (held + activations * search.fits) / 1e6
    )
    for count, peak in search.points.items():
        yield Measurement(name, "peak_memory_mb", peak / 1e6, count)
