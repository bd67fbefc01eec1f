"""Recording: the measurement of one fit, from its begin to its result."""

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
from keras_precision.callbacks.fit_frame import FitFrame
from keras_precision.callbacks.journal import Journal
from keras_precision.callbacks.probes.probe import FitState, Probe
from keras_precision.callbacks.probes.probe_set import ProbeSet
from keras_precision.core.environment import Environment
from keras_precision.core.errors import PlanError, PrecisionWarning
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.printable import one_line
from keras_precision.core.result import Measurement, Result, Value, log_path

__all__ = ["Recording", "Subject"]

_JOURNAL_STEPS = 32  # half of the 64 rows that a killed run may lose
_LOGGED = ("step_time_ms", "samples_per_second", "peak_memory_mb", "loss_scale", "skipped_steps", "finite")


@dataclass(frozen=True)
class Subject:
    """The model that is recorded, and how it is trained.

    Attributes:
        model: The model.
        params: The parameters that ``fit`` passes to callbacks: verbose, epochs, steps.
        optimizer: The optimizer of a custom training loop.
        own_loop: Whether it is trained by a custom training loop instead of ``fit``.
        fit_frame: The running ``fit``; None for a custom training loop, whose end is known.
    """

    model: Any
    params: Mapping[str, Any]
    optimizer: Any = None
    own_loop: bool = False
    fit_frame: FitFrame | None = None


class Recording:
    """Calls the probes of one fit, and builds its result; a failure in here becomes a note and a warning.

    Attributes:
        subject: The model, and how it is trained.
        samples: Samples that a custom training loop has counted; None in ``fit``.
    """

    def __init__(self, subject: Subject, name: str | None, path: str | os.PathLike[str] | None) -> None:
        self.subject = subject
        self.samples: int | None = 0 if subject.own_loop else None
        self._name, self._path = name, path
        self._fit: FitState | None = None
        self._probes = ProbeSet((), self._note)
        self._notes: list[str] = []
        self._epochs: list[Measurement] = []
        self._own_ns = self._steps = self._batch = self._resets_before = 0
        self._epoch: int | None = None
        self._resets: Sequence[None] = ()
        self._resources = contextlib.ExitStack()
        self._journal: Journal | None = None
        self._journal_failed = False

    def begin(self, probes: Sequence[Probe]) -> None:
        """Start the probes, and create the journal if the run has a path."""
        subject = self.subject
        with self.guarded("nothing could be measured"):
            adapter = adapter_of(subject.model)
            fit = FitState(
                subject.model, adapter, subject.optimizer, own_loop=subject.own_loop, resources=self._resources
            )
            self._resets = self._resources.enter_context(adapter.counting_resets(subject.model))
            self._fit = fit
            self._probes = ProbeSet(probes, self._note)
            self._probes.apply(lambda probe: probe.begin(fit))
        if self._path is not None and self._fit is not None:
            with self.guarded(f"nothing is written to '{self._path}' while the run lasts"):
                plan = self._plan()
                self._journal = Journal(
                    self._path, Result(self._run_name(plan), (), self._environment(self._fit), plan)
                )
                self._resources.callback(self._close_journal, self._journal)

    @property
    def steps(self) -> int:
        """The number of completed steps."""
        return self._steps

    def close(self) -> None:
        """Release all resources, whether the fit ended or was interrupted."""
        self._resources.close()

    def wait(self, outputs: Any) -> None:
        """Wait until the device has computed ``outputs``, tensors in any structure."""
        if self._fit is not None:
            self._fit.adapter.compute.wait(outputs)

    def epoch_begin(self, epoch: int) -> None:
        """Record the number of the epoch, from 0."""
        self._epoch, self._resets_before = epoch, len(self._resets)

    def step_begin(self, batch: int) -> None:
        """Start a step whose first batch has the number ``batch`` in the epoch, from 0."""
        entered = time.perf_counter_ns()
        self._batch = batch
        self._probes.step_begin()
        self._own_ns += time.perf_counter_ns() - entered

    def step_end(self, batch: int, logs: Logs) -> None:
        """End a step whose last batch has the number ``batch``; ``logs`` are the metrics of the epoch so far."""
        entered = time.perf_counter_ns()
        batches = self._batches_until(batch)
        if self._fit is not None:
            self._fit.batches += batches
            self._fit.loss = logs.get("loss") if logs else None
            # Of data of unknown length, the last group under steps_per_execution may have been shorter.
            self._fit.batches_exact &= batch == self._batch or self.subject.params.get("steps") is not None
        self._steps += 1
        self._probes.step_end(batches)
        if self._journal is not None and (self._steps % _JOURNAL_STEPS == 0 or self._journal.due):
            self._write_journal()
        self._own_ns += time.perf_counter_ns() - entered

    def _batches_until(self, batch: int) -> int:
        """Return the batches of the step that ends with ``batch``; Keras's last number may exceed the steps of the epoch."""
        # With steps_per_execution, Keras counts full executions: https://github.com/keras-team/keras/blob/v3.15.1/keras/src/trainers/epoch_iterator.py
        steps = self.subject.params.get("steps")
        last = batch if steps is None else min(batch, int(steps) - 1)
        return max(1, last - self._batch + 1)

    def end_epoch(self) -> None:
        """Once per epoch, count its samples, and call the probes' hook for reads that synchronize with the device."""
        fit, epoch = self._fit, self._epoch
        if fit is None or epoch is None:
            return
        self._epoch = None
        samples = self._epoch_samples(fit)
        fit.samples = None if samples is None or fit.samples is None else fit.samples + samples
        self._probes.apply(lambda probe: probe.epoch_end(epoch))

    def epoch_metrics(self, epoch: int, logs: Logs) -> None:
        """Record the metrics of an epoch, validation included."""
        self._epochs += [
            Measurement("epoch", key, float(value), epoch) for key, value in (logs or {}).items() if _is_number(value)
        ]
        self._write_journal()

    def add_metrics(self, logs: Logs) -> None:
        """Add the current values of the probes to the logs of an epoch."""
        if isinstance(logs, MutableMapping):
            values = self._values()
            logs.update({key: values[key] for key in _LOGGED if values.get(key) is not None})

    def finish(self) -> Result:
        """End the recording, and return and save its result."""
        result = Result(self._name or "unknown")
        with self.guarded("the result could not be built"):
            result = self._build_result() or result
        result = replace(result, notes=tuple(self._notes))
        if self._path is not None:
            with self.guarded(f"the result could not be saved to '{self._path}'"):
                result.save(self._path)
                log_path(self._path).unlink(missing_ok=True)
        return result

    def _build_result(self) -> Result | None:
        self.close()
        fit = self._fit
        if fit is None:
            return None
        plan, environment, measurements = self._plan(), self._environment(fit), tuple(self._measurements(fit))
        self._probes.apply(lambda probe: probe.end())
        return Result(self._run_name(plan), measurements, environment, plan)

    def _run_name(self, plan: PrecisionPlan | None) -> str:
        if self._name or self._fit is None:
            return self._name or "unknown"
        return plan.default if plan else self._fit.adapter.policy_name(self._fit.model)

    def _write_journal(self) -> None:
        """Append the measurements since the last call."""
        journal = self._journal
        if journal is not None:
            self._probes.apply(journal.buffer_from)
            try:
                journal.flush()
            except OSError as error:  # a full disk may have room later: one warning, and the next rows are tried again
                if not self._journal_failed:
                    self._note(f"'{journal.path}' could not be written: {error}")
                self._journal_failed = True

    def _close_journal(self, journal: Journal) -> None:
        with self.guarded(f"'{journal.path}' could not be written"):
            journal.close()

    def _epoch_samples(self, fit: FitState) -> int | None:
        """Return the samples of this epoch; None where another callback's ``evaluate`` reset the count during it."""
        samples = self.samples
        if samples is None and len(self._resets) == self._resets_before:
            with self.guarded("samples could not be counted"):
                samples = fit.adapter.samples_seen(fit.model)
        return samples

    def _values(self) -> dict[str, Value]:
        values: dict[str, Value] = {}
        self._probes.apply(lambda probe: values.update(probe.values()))
        return values

    def _measurements(self, fit: FitState) -> Iterator[Measurement]:
        for metric, value in self._values().items():
            yield Measurement("fit", metric, value)
        yield Measurement("fit", "batches", fit.batches if fit.batches_exact else None)
        yield Measurement("fit", "samples", fit.samples)
        yield Measurement("fit", "profiler_us_per_step", self._own_ns / 1e3 / max(1, self._steps))
        yield from self._epochs
        rows: list[Measurement] = []
        self._probes.apply(lambda probe: rows.extend(probe.rows()))
        yield from rows

    def _environment(self, fit: FitState) -> Environment:
        sources: dict[str, str] = {}
        self._probes.apply(lambda probe: sources.update(probe.sources()))
        return fit.adapter.compute.environment().with_sources(sources)

    def _plan(self) -> PrecisionPlan | None:
        try:
            return plan_of(self.subject.model)
        except PlanError as error:
            if str(error) not in self._notes:
                self._notes.append(str(error))
            return None

    @contextlib.contextmanager
    def guarded(self, failure: str) -> Iterator[None]:
        """Turn an exception into a note and a warning that begin with ``failure``, so that the training continues."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - training must go on, whatever fails in here
            self._note(f"{failure}: {type(error).__name__}: {error}")

    def _note(self, text: str) -> None:
        text = one_line(text)
        self._notes.append(text)
        warnings.warn(f"PrecisionProfiler: {text}", PrecisionWarning, stacklevel=2)


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True
