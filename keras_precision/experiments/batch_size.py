"""find_max_batch_size: the largest batch with which a model can be trained, by precision."""

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
from keras_precision.experiments.worker import Worker, deadline_after, serialize

__all__ = ["find_max_batch_size"]

_SHARE = 0.8  # of the free memory
_NARROW = 0.03  # between the largest batch that fits and the smallest that does not
_FIRST = 8
_TIMED_STEPS = 5
_MOST_TRIALS = 12  # in fresh processes
_SURVEYED = (0.35, 0.7)  # of the first prediction: far enough apart for a slope, and below the limit
_SIGNS = (
    "RESOURCE_EXHAUSTED", "ResourceExhausted", "out of memory", "OutOfMemory", "OOM", "can't allocate", "MemoryError",
    "bad_alloc", "SIGKILL", f"exit code {OVER_LIMIT}",
)  # fmt: skip
_NO_MEMORY = "one training step in its own process, under the limit"


@dataclass
class _SearchState:
    """The state of the search in one precision.

    Attributes:
        points: Batch size to peak bytes, of the steps that fitted.
        fresh: Those of fresh processes: a process that took smaller steps before still holds their memory.
        plan: The estimate before any step.
        predicted: The batch that the line through the points predicts.
        trials: Steps in fresh processes.
        times: Milliseconds of the steps at the largest batch.
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
    time_limit: float | None = None,
    verbose: bool | None = None,
) -> Result:
    """Find the largest batch with which a model can be trained within a memory limit, by precision.

    One process doubles the batch while the next batch is predicted to fit, and two fresh processes run about a third and two
    thirds of the batch that this predicts. A line through their peaks, ``peak = a + c * batch``, predicts the largest; more
    fresh processes verify it, and bisect between a batch that fits and one that does not, to 3 %. A step that needs too much
    memory ends only its own process.

    Args:
        build: A function that returns a compiled model, ``"module:function"``, or the path of a ``.keras`` file.
        make_batch: Called with a count, returns ``(x, y)`` of so many samples; a function, or ``"module:function"``.
        precisions: Policies or training plans, or run names to these.
        memory_limit: The most bytes of the process, on a CPU; of its allocator, on an accelerator. None: 80 % of the
            free memory, on a CPU; on an accelerator, the limit of its allocator.
        margin: Share of the limit that stays free.
        max_batch: The largest batch of the search.
        time_limit: Seconds for everything; None for no limit.
        verbose: Whether to draw a progress bar; None: on a terminal.

    Returns:
        A result whose subjects are the precisions: ``largest_batch``, ``predicted_batch``, ``trials``,
        ``samples_per_second`` and ``peak_memory_mb`` at the largest batch, ``sample_mb`` (the slope), and the
        estimates: ``weights_mb``, ``gradients_mb``, ``optimizer_mb``, ``planned_sample_mb``, ``planned_memory_mb``.

    Raises:
        InputError: An argument cannot be used.
        DataError: ``make_batch`` does not return the requested number of samples.
        WorkerError: A step failed for another reason than memory, or the time is over.

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
    task = serialize((check_build(build), make_batch), "build and make_batch")
    deadline = deadline_after(time_limit)
    searches: dict[str, _SearchState] = {}
    with progress("searching", "precisions", len(runs), verbose=verbose) as advance:
        for name, precision in runs.items():
            searches[name] = _Search(task, name, precision, (memory_limit, margin), max_batch, deadline).run()
            advance(1)
    return _result(searches)


class _Search:
    """The search in one precision."""

    def __init__(
        self,
        task: bytes,
        name: str,
        precision: str | PrecisionPlan,
        memory: tuple[int | None, float],
        max_batch: int,
        deadline: float | None,
    ) -> None:
        self._limit, self._margin = memory
        self._factory = serialize(_TrialFactory(task, precision, self._limit), "the trial")
        self._name, self._max_batch, self._backend = name, max_batch, keras_backend()
        self._deadline = deadline
        self._state = _SearchState()

    def run(self) -> _SearchState:
        """Double, survey and verify; return the final state."""
        self._double()
        self._survey()
        self._verify()
        return self._state

    @property
    def _budget(self) -> float:
        """The largest peak in bytes; infinite where only the allocator limits it."""
        return math.inf if self._limit is None else self._limit * (1 - self._margin)

    def _double(self) -> None:
        """Measure doubling batches in one process while the next one is predicted to fit."""
        state = self._state
        with self._worker() as worker:
            state.plan = worker.ask("plan", deadline=self._deadline)
            if self._limit is None and state.plan["on_processor"]:
                self._limit = int(state.plan["resident"] + _SHARE * psutil.virtual_memory().available)
            count = min(_FIRST, self._max_batch)
            while count <= self._max_batch:
                peak = _step_in_memory(lambda: worker.ask("step", count, deadline=self._deadline))  # noqa: B023 - called at once
                if peak is None or peak[0] > self._budget:
                    state.fails = count
                    break
                state.points[count], state.fits = peak[0], count
                if 2 * count > self._max_batch or self._line(2 * count) > self._budget:
                    break
                count *= 2

    def _worker(self) -> Worker:
        return Worker(self._factory, self._name, self._backend, deadline=self._deadline)

    def _survey(self) -> None:
        """Measure two batches below the limit in fresh processes, and predict again from these."""
        state, predicted = self._state, self._predicted()
        if state.points and predicted < self._max_batch and not math.isinf(self._budget):
            for count in sorted({math.floor(share * predicted) for share in _SURVEYED} - {0}):
                self._try(count)
        state.predicted = self._predicted()

    def _try(self, count: int) -> None:
        """Take steps in a fresh process, and record whether there was enough memory."""
        state = self._state
        state.trials += 1
        with self._worker() as worker:
            step = _step_in_memory(lambda: worker.ask("step", count, _TIMED_STEPS, deadline=self._deadline))
        if step is not None:
            state.points[count] = state.fresh[count] = step[0]
        if step is None or step[0] > self._budget:
            state.fails = count
        elif count >= state.fits:
            state.fits, state.peak, state.times = count, *step

    def _predicted(self) -> int:
        """Return the batch at which the line meets the budget."""
        state = self._state
        a, c = _best_line(state)
        if not state.points:
            return max(1, (state.fails or 2) // 2)
        if math.isinf(self._budget):
            return state.fails - 1 if state.fails else self._max_batch
        batch = math.floor((self._budget - a) / c) if c > 0 else 2 * max(state.points)
        return max(1, min(self._max_batch, batch))

    def _line(self, count: int) -> float:
        a, c = _line(self._state.points)
        return a + c * count if len(self._state.points) > 1 else 0.0

    def _verify(self) -> None:
        """Try the prediction in fresh processes, and bisect between fit and failure."""
        state = self._state
        count = int(state.predicted or 1)
        while state.trials < _MOST_TRIALS:
            self._try(count)
            candidate = self._next_batch()
            if candidate is None:
                return
            count = candidate

    def _next_batch(self) -> int | None:
        """Return the next batch to try; None where the largest is known to 3 %, and was tried."""
        state = self._state
        if state.fails is None:
            if state.fits >= self._max_batch:
                return None
            return min(self._max_batch, max(state.fits + 1, math.ceil(state.fits * (1 + _NARROW)), self._predicted()))
        if state.fails - state.fits <= max(1, math.ceil(_NARROW * state.fits)):
            return None if state.times or not state.fits else state.fits
        again = self._predicted()  # the line has more points by now
        step = max(1, math.floor(_NARROW * state.fits))
        inside = state.fits + step <= again <= state.fails - step
        return again if inside else (state.fits + state.fails) // 2


@dataclass(frozen=True)
class _TrialFactory:
    """Creates a trial in a child process."""

    task: bytes
    precision: str | PrecisionPlan
    limit: int | None

    def __call__(self, channel: Channel) -> Trial:
        build, make_batch = pickle.loads(self.task)
        return Trial(channel, build, make_batch, self.precision, self.limit)


def _step_in_memory(ask: Callable[[], Any]) -> tuple[float, list[float]] | None:
    """Return peak bytes and times of a step; None where there was not enough memory for it."""
    try:
        peak, times = ask()
    except WorkerError as error:
        if any(sign in str(error) for sign in _SIGNS):
            return None
        raise
    return float(peak), list(times)


def _line(points: Mapping[int, float]) -> tuple[float, float]:
    """Return ``a`` and ``c`` of ``peak = a + c * batch`` from the two largest batches: small ones hide the slope."""
    if len(points) < 2:
        return max(points.values(), default=0.0), 0.0
    (low, first), (high, second) = sorted(points.items())[-2:]
    slope = (second - first) / (high - low)
    return second - slope * high, slope


def _best_line(search: _SearchState) -> tuple[float, float]:
    """Return ``a`` and ``c`` by least squares over fresh processes, near the limit; before there are two, over the others."""
    if len(search.fresh) < 2:
        return _line(search.points)
    c, a = np.polyfit(list(search.fresh), list(search.fresh.values()), 1)
    return float(a), float(c)


def _result(searches: Mapping[str, _SearchState]) -> Result:
    rows = [row for name, search in searches.items() for row in _rows(name, search)]
    notes = []
    for name, search in searches.items():
        if search.fits and search.fails is None:
            notes.append(f"{name}: the search ended at max_batch, and not at the limit of memory")
        if not search.fits:
            notes.append(f"{name}: no batch fits")
    first = next(iter(searches.values())).plan
    sources = {"peak_memory_mb": str(first.get("source", "")), "largest_batch": _NO_MEMORY}
    return Result("largest batch", tuple(rows), Environment.here(sources=sources), notes=tuple(notes))


def _rows(name: str, search: _SearchState) -> Iterator[Measurement]:
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
    constant = sum(search.plan[kind] for kind in ("weights", "gradients", "optimizer"))
    yield Measurement(name, "planned_sample_mb", None if activations is None else activations / 1e6)
    yield Measurement(
        name, "planned_memory_mb", None if activations is None else (constant + activations * search.fits) / 1e6
    )
    for count, peak in search.points.items():
        yield Measurement(name, "peak_memory_mb", peak / 1e6, count)
