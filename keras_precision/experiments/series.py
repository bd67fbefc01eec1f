"""Series: the runs of one comparison, trained one after the other and timed by turns, with nothing lost on the way."""

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
from keras_precision.experiments.aggregation import merged, traced_rows
from keras_precision.experiments.channel import Channel
from keras_precision.experiments.interleaving import Turns, take_turns
from keras_precision.experiments.onednn_log import VERBOSE, kernels_of
from keras_precision.experiments.run import Run
from keras_precision.experiments.worker import Worker, packed

__all__ = ["Series", "Watch", "keras_backend"]

_SHARE_OF_TRAINING = 0.7  # of the time limit: what is left is for the turns
_REMEDIES = {
    "initial_weights": "Let Keras's seed decide all that is random in build: it is set before each call.",
    "data_order": "Give arrays, or a function that makes the data in one order each time it is called.",
    "configuration": "Let build make one model, whatever the precision and the process are.",
}


@dataclass
class _Measured:
    """What is known of one run so far."""

    trained: dict[int, Result] = field(default_factory=dict)
    identities: dict[int, dict[str, str]] = field(default_factory=dict)
    traced: list[Measurement] = field(default_factory=list)


@dataclass(frozen=True)
class _Serve:
    """Makes a run in a child."""

    task: bytes
    name: str
    precision: str | PrecisionPlan
    seed: int

    def __call__(self, channel: Channel) -> Run:
        return Run(channel, pickle.loads(self.task), self.name, self.precision, self.seed)


@dataclass(frozen=True)
class Watch:
    """How the turns are to be.

    Attributes:
        processes: Of each run, that take turns one after the other: each is a little faster or slower for good.
        resolution: How narrow the intervals of speedups are to be.
        seconds: Of turns at the most, all processes together.
    """

    processes: int
    resolution: float
    seconds: float


class Series:
    """The runs of one comparison.

    Args:
        runs: Name to precision, the baseline first.
        task: What every run does, packed.
        settings: Mode and margin of the comparison.
        deadline: When all must end, as ``time.monotonic`` counts; None for never.
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
        self._measured = {name: _Measured() for name in runs}
        self._running = list(runs)  # without those that failed
        self._resident: dict[str, Worker] = {}
        self._metric = ""
        self._turns: list[Turns] = []
        self._session = secrets.token_hex(4)
        self._notes: list[str] = []

    def __enter__(self) -> Self:
        """Return the series."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End every process."""
        self._let_all_go()

    @property
    def has_baseline(self) -> bool:
        """Whether a training of the baseline has ended."""
        return bool(self._measured[self._baseline].trained)

    @property
    def _baseline(self) -> str:
        return next(iter(self._runs))

    def note(self, text: str) -> None:
        """Note what a reader should know, and warn of it."""
        self._notes.append(text)
        warnings.warn(f"compare_training: {text}", PrecisionWarning, stacklevel=3)

    def train(self, seeds: Sequence[int], watch: Watch, advance: Callable[[int], None]) -> None:
        """Train every run from every seed, each in a fresh process, one at a time; then let these take turns.

        Args:
            seeds: The seeds.
            watch: How the turns are to be.
            advance: Told how many processes have ended.

        Raises:
            PrecisionError: What was passed in cannot be used, or the baseline failed.
        """
        began = time.monotonic()
        for number, seed in enumerate(seeds):
            before = time.monotonic()
            for name in list(self._running):
                self._train_one(name, seed)
                advance(1)
            self._save()
            if len(self._resident) == len(self._running) and number < watch.processes:
                self._take_turns(watch)
            self._let_all_go()
            taken = time.monotonic() - before
            if number + 1 < len(seeds) and self._is_late(began, taken):
                self.note(f"the time limit allowed {number + 1} of {len(seeds)} seeds")
                break

    def time(self, seeds: Sequence[int], watch: Watch, advance: Callable[[int], None]) -> None:
        """Let fresh processes of every run take turns, until as many did as are wanted.

        Args:
            seeds: The seeds, used again in turn.
            watch: How the turns are to be.
            advance: Told how many processes have ended.
        """
        while len(self._turns) < watch.processes and len(self._running) > 1 and not self._is_over():
            try:
                for name in list(self._running):
                    seed = seeds[len(self._turns) % len(seeds)]
                    self._resident[name] = self._started(name, seed)
                    advance(1)
                self._take_turns(watch)
            except WorkerError as error:
                self.note(f"the turns ended early: {error}")
                break
            finally:
                self._let_all_go()
        if len(self._turns) < watch.processes and len(self._running) > 1:
            self.note(f"{len(self._turns)} of {watch.processes} processes of each run took turns in the time")
        self._save()

    def trace(self, seed: int, folder: Path) -> None:
        """Write a trace of a few steps of each run, and note which kernels they ran.

        Args:
            seed: The seed of the runs.
            folder: Where the traces go, each run's in a folder of its own.
        """
        for name in list(self._running):
            place = folder / name.replace(os.sep, "_")
            place.mkdir(parents=True, exist_ok=True)
            try:
                with self._started(name, seed, VERBOSE) as worker:
                    times = worker.ask("trace", str(place), deadline=self._deadline)
                    self._measured[name].traced = traced_rows(kernels_of(worker.log()), *times)
            except WorkerError as error:
                self.note(f"'{name}' has no trace: {error}")
        self._save()

    def _take_turns(self, watch: Watch) -> None:
        workers = {name: self._resident[name] for name in self._running}
        if len(workers) < 2:
            return
        turns = take_turns(
            workers,
            resolution=watch.resolution / 2,
            seconds=watch.seconds / watch.processes,
            deadline=self._deadline,
        )
        for name, error in turns.failed.items():
            self._running.remove(name)
            self.note(f"'{name}' takes no more turns: {error}")
        self._turns.append(turns)

    def comparison(self) -> Comparison:
        """Return what was measured.

        Raises:
            WorkerError: There is nothing of the baseline.
        """
        results = [self._result(name) for name, measured in self._measured.items() if measured.trained]
        if not self.has_baseline:
            raise WorkerError(f"Expected a training of '{self._baseline}' that ended. Received: none within the time.")
        return Comparison(results[0], results[1:], metric=self._metric, notes=self._notes, **self._settings)

    def comparison_of_nothing(self) -> Comparison:
        """Return a comparison without figures: it refuses settings that cannot be."""
        return Comparison(Result(self._baseline), **self._settings)

    def _train_one(self, name: str, seed: int) -> None:
        measured = self._measured[name]
        try:
            worker = self._started(name, seed)
            self._resident[name] = worker  # closed by __exit__, whatever comes
            identity = worker.ask("prepare", deadline=self._deadline)
            self._metric = identity.pop("metric")
            self._check_identity(name, seed, identity)
            result: Result = worker.ask("train", deadline=self._deadline)
        except WorkerError as error:
            self._let_go(name)
            if name == self._baseline and not measured.trained:
                raise
            self._running.remove(name)
            self.note(f"'{name}' is left out from seed {seed} on: {error}")
            return
        measured.trained[seed], measured.identities[seed] = result, identity
        # On an accelerator, memory that a waiting process holds would be missing to the next one.
        if result.environment.device != result.environment.processor:
            self._let_go(name)

    def _let_go(self, name: str) -> None:
        worker = self._resident.pop(name, None)
        if worker is not None:
            worker.close()

    def _let_all_go(self) -> None:
        for name in list(self._resident):
            self._let_go(name)

    def _started(self, name: str, seed: int, environment: Mapping[str, str] | None = None) -> Worker:
        serve = _Serve(self._task, name, self._runs[name], seed)
        return Worker(packed(serve, "the run"), name, self._backend, environment, deadline=self._deadline)

    def _check_identity(self, name: str, seed: int, identity: Mapping[str, str]) -> None:
        for what, value in self._measured[self._baseline].identities.get(seed, identity).items():
            if identity[what] != value:
                words = what.replace("_", " ")
                raise InputError(
                    f"Expected runs that differ in precision alone. Received: '{name}' and '{self._baseline}', whose {words} "
                    f"differ for seed {seed} ({identity[what]} and {value}). {_REMEDIES[what]}"
                )

    def _is_late(self, began: float, taken: float) -> bool:
        if self._deadline is None:
            return False
        now = time.monotonic()
        return now + taken - began > _SHARE_OF_TRAINING * (self._deadline - began)

    def _is_over(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def _result(self, name: str) -> Result:
        measured = self._measured[name]
        result = merged(name, measured.trained, measured.identities, self._metric, self._turns, self._session)
        return result.with_measurements(measured.traced)

    def _save(self) -> None:
        if self._path is None or not self.has_baseline:
            return
        try:
            self.comparison().save(self._path)
        except OSError as error:  # a full disk must not cost what is in memory
            self.note(f"'{self._path}' could not be written: {error}")


def keras_backend() -> str | None:
    """Return the backend of Keras in this process, if Keras is loaded: children use the same."""
    return adapters_in_use()[0].compute.name if "keras" in sys.modules else None
