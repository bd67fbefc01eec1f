"""Recording: one fit that is being watched, from its begin to its result."""

import contextlib
import os
import time
import warnings
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import plan_of
from keras_precision._adapters.training.callback import Logs
from keras_precision.callbacks.fit_frame import Caller
from keras_precision.callbacks.journal import Journal
from keras_precision.callbacks.probes.probe import Fit, Probe
from keras_precision.callbacks.probes.probe_set import ProbeSet
from keras_precision.core.environment import Environment
from keras_precision.core.errors import PlanError, PrecisionWarning
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result, Value

__all__ = ["Recording", "Subject"]

_JOURNAL_STEPS = 32  # twice in the 64 rows that may be lost
_LOGGED = ("step_time_ms", "samples_per_second", "peak_memory_mb", "loss_scale", "skipped_steps")


@dataclass(frozen=True)
class Subject:
    """What is recorded.

    Attributes:
        model: The model.
        params: What ``fit`` tells callbacks: verbose, epochs, steps.
        optimizer: What a loop of the user's own updates the model with.
        own_loop: Whether there is such a loop, and no ``fit``.
        caller: The fit; None for a loop, which says itself when it ends.
    """

    model: Any
    params: Mapping[str, Any]
    optimizer: Any = None
    own_loop: bool = False
    caller: Caller | None = None


class Recording:
    """Lets probes watch one fit, and makes its result.

    Nothing that fails in here reaches the training: it becomes a note, and a warning.

    Args:
        subject: What is recorded.
        name: What tables call the run; None for the precision that most layers have.
        path: Where rows are appended while the run lasts; None for nowhere.

    Attributes:
        subject: What is recorded.
        samples: Samples that a loop of the user's own said; None in ``fit``.
    """

    def __init__(self, subject: Subject, name: str | None, path: str | os.PathLike[str] | None) -> None:
        self.subject = subject
        self.samples: int | None = 0 if subject.own_loop else None
        self._name, self._path = name, path
        self._fit: Fit | None = None
        self._watching = ProbeSet((), self._note)
        self._notes: list[str] = []
        self._epochs: list[Measurement] = []
        self._own_ns = self._steps = self._batch = self._resets_before = 0
        self._epoch: int | None = None
        self._resets: Sequence[None] = ()
        self._resources = contextlib.ExitStack()
        self._journal: Journal | None = None

    def begin(self, probes: Sequence[Probe]) -> None:
        """Let the probes see the fit begin.

        Args:
            probes: What watches it.
        """
        subject = self.subject
        with self.guarded("nothing could be measured"):
            adapter = adapter_of(subject.model)
            fit = Fit(subject.model, adapter, subject.optimizer, own_loop=subject.own_loop, resources=self._resources)
            self._resets = self._resources.enter_context(adapter.counting_resets(subject.model))
            self._fit = fit
            self._watching = ProbeSet(probes, self._note)
            self._watching.each(lambda probe: probe.begin(fit))
        if self._path is not None and self._fit is not None:
            with self.guarded(f"nothing is written to '{self._path}' while the run lasts"):
                plan = self._plan()
                self._journal = Journal(self._path, Result(self._named(plan), (), self._environment(self._fit), plan))
                self._resources.callback(self._journal.close)

    @property
    def steps(self) -> int:
        """Steps that have ended."""
        return self._steps

    def close(self) -> None:
        """Let go of everything, whether the fit ended or was interrupted."""
        self._resources.close()

    def wait(self, outputs: Any) -> None:
        """Return when the device has computed ``outputs``.

        Args:
            outputs: Tensors in any structure.
        """
        if self._fit is not None:
            self._fit.adapter.compute.wait(outputs)

    def epoch_begin(self, epoch: int) -> None:
        """Note which epoch it is.

        Args:
            epoch: Its number, from 0.
        """
        self._epoch, self._resets_before = epoch, len(self._resets)

    def step_begin(self, batch: int) -> None:
        """Let the probes see a step begin.

        Args:
            batch: The number of its first batch in the epoch, from 0.
        """
        entered = time.perf_counter_ns()
        self._batch = batch
        self._watching.step_begin()
        self._own_ns += time.perf_counter_ns() - entered

    def step_end(self, batch: int, logs: Logs) -> None:
        """Let the probes see a step end.

        Args:
            batch: The number of its last batch in the epoch.
            logs: The metrics of the epoch until here.
        """
        entered = time.perf_counter_ns()
        batches = self._batches_until(batch)
        if self._fit is not None:
            self._fit.batches += batches
            self._fit.loss = logs.get("loss") if logs else None
            # Several batches at once, from data of unknown length: the last group may have been shorter.
            self._fit.batches_exact &= batch == self._batch or self.subject.params.get("steps") is not None
        self._steps += 1
        self._watching.step_end(batches)
        if self._journal is not None and (self._steps % _JOURNAL_STEPS == 0 or self._journal.due):
            self._write_journal()
        self._own_ns += time.perf_counter_ns() - entered

    def _batches_until(self, batch: int) -> int:
        """Batches of the step that ends with ``batch``: several under ``steps_per_execution``.

        The number that Keras gives for the last step of an epoch may lie behind the end of the data.
        """
        steps = self.subject.params.get("steps")
        last = batch if steps is None else min(batch, int(steps) - 1)
        return max(1, last - self._batch + 1)

    def end_epoch(self) -> None:
        """Once an epoch: count its samples, and let the probes read what waits for the device."""
        fit, epoch = self._fit, self._epoch
        if fit is None or epoch is None:
            return
        self._epoch = None
        seen = self._samples_seen(fit)
        fit.samples = None if seen is None or fit.samples is None else fit.samples + seen
        self._watching.each(lambda probe: probe.epoch_end(epoch))

    def epoch_metrics(self, epoch: int, logs: Logs) -> None:
        """Note the metrics of an epoch, those of its validation included.

        Args:
            epoch: Its number, from 0.
            logs: The metrics.
        """
        self._epochs += [
            Measurement("epoch", key, float(value), epoch) for key, value in (logs or {}).items() if _is_number(value)
        ]
        self._write_journal()

    def add_metrics(self, logs: Logs) -> None:
        """Add our own figures, as they stand, to the logs of an epoch.

        Args:
            logs: The logs.
        """
        if isinstance(logs, MutableMapping):
            values = self._values()
            logs.update({key: values[key] for key in _LOGGED if values.get(key) is not None})

    def finish(self) -> Result:
        """End the recording.

        Returns:
            What was measured.
        """
        result = Result(self._name or "unknown")
        with self.guarded("the result could not be made"):
            result = self._measured() or result
        result = replace(result, notes=tuple(self._notes))
        if self._path is not None:
            with self.guarded(f"the result could not be saved to '{self._path}'"):
                result.save(self._path)
        return result

    def _measured(self) -> Result | None:
        self.close()
        fit = self._fit
        if fit is None:
            return None
        plan, environment, measurements = self._plan(), self._environment(fit), tuple(self._measurements(fit))
        self._watching.each(lambda probe: probe.end())
        return Result(self._named(plan), measurements, environment, plan)

    def _named(self, plan: PrecisionPlan | None) -> str:
        if self._name or self._fit is None:
            return self._name or "unknown"
        return plan.default if plan else self._fit.adapter.policy_name(self._fit.model)

    def _write_journal(self) -> None:
        """Append what was measured since the last time."""
        journal = self._journal
        if journal is not None:
            self._watching.each(journal.follow)
            with self.guarded(f"'{self._path}' could not be written"):
                journal.flush()

    def _samples_seen(self, fit: Fit) -> int | None:
        """Samples of this epoch; None where another callback's ``evaluate`` reset the count in its midst."""
        seen = self.samples
        if seen is None and len(self._resets) == self._resets_before:
            with self.guarded("samples could not be counted"):
                seen = fit.adapter.samples_seen(fit.model)
        return seen

    def _values(self) -> dict[str, Value]:
        values: dict[str, Value] = {}
        self._watching.each(lambda probe: values.update(probe.values()))
        return values

    def _measurements(self, fit: Fit) -> Iterator[Measurement]:
        for metric, value in self._values().items():
            yield Measurement("fit", metric, value)
        yield Measurement("fit", "batches", fit.batches if fit.batches_exact else None)
        yield Measurement("fit", "samples", fit.samples)
        yield Measurement("fit", "profiler_us_per_step", self._own_ns / 1e3 / max(1, self._steps))
        yield from self._epochs
        rows: list[Measurement] = []
        self._watching.each(lambda probe: rows.extend(probe.rows()))
        yield from rows

    def _environment(self, fit: Fit) -> Environment:
        sources: dict[str, str] = {}
        self._watching.each(lambda probe: sources.update(probe.sources()))
        return fit.adapter.compute.environment().with_sources(sources)

    def _plan(self) -> PrecisionPlan | None:
        try:
            return plan_of(self.subject.model)
        except PlanError as error:
            if str(error) not in self._notes:
                self._notes.append(str(error))
            return None

    @contextlib.contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Keep what fails away from the training: it becomes a note and a warning.

        Args:
            what: What could not be done.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - training must go on, whatever fails in here
            self._note(f"{what}: {type(error).__name__}: {error}")

    def _note(self, text: str) -> None:
        self._notes.append(text)
        warnings.warn(f"PrecisionProfiler: {text}", PrecisionWarning, stacklevel=2)


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True
