"""Series: the runs of one comparison, trained one after the other and timed interleaved; partial results are saved."""

import os
import pickle
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from keras_precision._adapters import adapters_in_use
from keras_precision.comparison.comparison import Comparison
from keras_precision.core.errors import InputError, PrecisionWarning, WorkerError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.experiments.aggregation import aggregate_run, trace_rows
from keras_precision.experiments.channel import Channel
from keras_precision.experiments.interleaving import InterleavedTimes, interleave
from keras_precision.experiments.onednn_log import VERBOSE, kernels_of
from keras_precision.experiments.run import Run
from keras_precision.experiments.worker import Worker, serialize

__all__ = ["Series", "TimingSettings", "keras_backend"]

_SHARE_OF_TRAINING = 0.7  # of the time limit: the rest is for the timing
_REMEDIES = {
    "initial_weights": "Use only randomness of Keras's seed in build: it is set before every call.",
    "data_order": "Pass arrays, or a function that returns the data in the same order on every call.",
    "configuration": "Let build return the same model in every precision and process.",
}


@dataclass
class _RunRecord:
    """The results of one run so far."""

    trained: dict[int, Result] = field(default_factory=dict)
    identities: dict[int, dict[str, str]] = field(default_factory=dict)
    trace: list[Measurement] = field(default_factory=list)


@dataclass(frozen=True)
class _RunFactory:
    """Creates a run in a child process."""

    task: bytes
    name: str
    precision: str | PrecisionPlan
    seed: int

    def __call__(self, channel: Channel) -> Run:
        return Run(channel, pickle.loads(self.task), self.name, self.precision, self.seed)


@dataclass(frozen=True)
class TimingSettings:
    """Settings of the timing.

    Attributes:
        processes: Processes per run, timed one after the other: a process is a little faster or slower for good.
        resolution: The target half width of the intervals of speedups.
        seconds: The most seconds of timing, all processes together.
    """

    processes: int
    resolution: float
    seconds: float


class Series:
    """The runs of one comparison.

    Args:
        runs: Name to precision, the baseline first.
        task: The serialized task of all runs.
        settings: Mode and margin of the comparison.
        deadline: The end of all, in ``time.monotonic``; None for no limit.
        path: Where the comparison is saved; None for nowhere.
    """

    def __init__(
        self,
        runs: Mapping[str, str | PrecisionPlan],
        task: bytes,
        settings: Mapping[str, Any],
        *,
        deadline: float | None = None,
        path: os.PathLike[str] | None = None,
    ) -> None:
        self._runs, self._task, self._settings = dict(runs), task, dict(settings)
        self._deadline, self._path = deadline, path
        self._backend = keras_backend()
        self._records = {name: _RunRecord() for name in runs}
        self._running = list(runs)  # without failed runs
        self._resident: dict[str, Worker] = {}
        self._metric = ""
        self._timings: list[InterleavedTimes] = []
        self._session = secrets.token_hex(4)
        self._notes: list[str] = []

    def __enter__(self) -> Self:
        """Return the series."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close all processes."""
        self._close_all()

    @property
    def has_baseline(self) -> bool:
        """Whether a training of the baseline has ended."""
        return bool(self._records[self._baseline].trained)

    @property
    def _baseline(self) -> str:
        return next(iter(self._runs))

    def note(self, text: str) -> None:
        """Record a note of the comparison, and warn of it."""
        self._notes.append(text)
        warnings.warn(f"compare_training: {text}", PrecisionWarning, stacklevel=3)

    def train(self, seeds: Sequence[int], timing: TimingSettings, advance: Callable[[int], None]) -> None:
        """Train every run from every seed in a fresh process, one at a time, and time these processes interleaved."""
        began = time.monotonic()
        for number, seed in enumerate(seeds):
            before = time.monotonic()
            for name in list(self._running):
                self._train_one(name, seed)
                advance(1)
            self._save()
            if len(self._resident) == len(self._running) and number < timing.processes:
                self._time_resident(timing)
            self._close_all()
            elapsed = time.monotonic() - before
            if number + 1 < len(seeds) and self._is_late(began, elapsed):
                self.note(f"the time limit allowed {number + 1} of {len(seeds)} seeds")
                break

    def time(self, seeds: Sequence[int], timing: TimingSettings, advance: Callable[[int], None]) -> None:
        """Time fresh processes of all runs, seeds in turn, until there are enough."""
        while len(self._timings) < timing.processes and len(self._running) > 1 and not self._is_over():
            try:
                for name in list(self._running):
                    seed = seeds[len(self._timings) % len(seeds)]
                    self._resident[name] = self._started(name, seed)
                    advance(1)
                self._time_resident(timing)
            except WorkerError as error:
                self.note(f"the timing ended early: {error}")
                break
            finally:
                self._close_all()
        if len(self._timings) < timing.processes and len(self._running) > 1:
            self.note(f"{len(self._timings)} of {timing.processes} processes per run were timed within the limit")
        self._save()

    def trace(self, seed: int, folder: Path) -> None:
        """Write a trace of a few steps of every run, in a folder of its name, and count the kernels."""
        for name in list(self._running):
            path = folder / name.replace(os.sep, "_")
            path.mkdir(parents=True, exist_ok=True)
            try:
                with self._started(name, seed, VERBOSE) as worker:
                    times = worker.ask("trace", str(path), deadline=self._deadline)
                    self._records[name].trace = trace_rows(kernels_of(worker.log()), *times)
            except WorkerError as error:
                self.note(f"'{name}' has no trace: {error}")
        self._save()

    def _time_resident(self, timing: TimingSettings) -> None:
        workers = {name: self._resident[name] for name in self._running}
        if len(workers) < 2:
            return
        times = interleave(
            workers,
            resolution=timing.resolution / 2,
            seconds=timing.seconds / timing.processes,
            deadline=self._deadline,
        )
        for name, error in times.failed.items():
            self._running.remove(name)
            self.note(f"'{name}' is not timed any more: {error}")
        self._timings.append(times)

    def comparison(self) -> Comparison:
        """Return the comparison so far."""
        results = [self._result(name) for name, record in self._records.items() if record.trained]
        if not self.has_baseline:
            raise WorkerError(
                f"Expected a training of '{self._baseline}' that ended. Received: none within the time. Allow more."
            )
        return Comparison(results[0], results[1:], metric=self._metric, notes=self._notes, **self._settings)

    def check_settings(self) -> None:
        """Raise for settings that a comparison does not accept."""
        Comparison(Result(self._baseline), **self._settings)

    def _train_one(self, name: str, seed: int) -> None:
        record = self._records[name]
        try:
            worker = self._started(name, seed)
            self._resident[name] = worker  # __exit__ closes it after any error
            identity = worker.ask("prepare", deadline=self._deadline)
            self._metric = identity.pop("metric")
            self._check_identity(name, seed, identity)
            result: Result = worker.ask("train", deadline=self._deadline)
        except WorkerError as error:
            self._close(name)
            if name == self._baseline and not record.trained:
                raise
            self._running.remove(name)
            self.note(f"'{name}' is excluded from seed {seed} on: {error}")
            return
        record.trained[seed], record.identities[seed] = result, identity
        # On an accelerator, the memory of a waiting process is not available to the next one.
        if result.environment.device != result.environment.processor:
            self._close(name)

    def _close(self, name: str) -> None:
        worker = self._resident.pop(name, None)
        if worker is not None:
            worker.close()

    def _close_all(self) -> None:
        for name in list(self._resident):
            self._close(name)

    def _started(self, name: str, seed: int, environment: Mapping[str, str] | None = None) -> Worker:
        factory = _RunFactory(self._task, name, self._runs[name], seed)
        return Worker(serialize(factory, "the run"), name, self._backend, environment, deadline=self._deadline)

    def _check_identity(self, name: str, seed: int, identity: Mapping[str, str]) -> None:
        for field_name, value in self._records[self._baseline].identities.get(seed, identity).items():
            if identity[field_name] != value:
                words = field_name.replace("_", " ")
                raise InputError(
                    f"Expected runs that differ only in precision. Received: '{name}' and '{self._baseline}', whose {words} "
                    f"differ for seed {seed} ({identity[field_name]} and {value}). {_REMEDIES[field_name]}"
                )

    def _is_late(self, began: float, elapsed: float) -> bool:
        if self._deadline is None:
            return False
        now = time.monotonic()
        return now + elapsed - began > _SHARE_OF_TRAINING * (self._deadline - began)

    def _is_over(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def _result(self, name: str) -> Result:
        record = self._records[name]
        result = aggregate_run(name, record.trained, record.identities, self._metric, self._timings, self._session)
        return result.with_measurements(record.trace)

    def _save(self) -> None:
        if self._path is None or not self.has_baseline:
            return
        try:
            self.comparison().save(self._path)
        except OSError as error:  # a full disk must not discard the results in memory
            self.note(f"'{self._path}' could not be written: {error}")


def keras_backend() -> str | None:
    """Return the backend of Keras in this process, if Keras is loaded: children use the same."""
    return adapters_in_use()[0].compute.name if "keras" in sys.modules else None
