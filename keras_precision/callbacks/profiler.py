"""PrecisionProfiler: what a precision does to a training run, watched from ``fit``."""

import contextlib
import copy
import os
import time
import warnings
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

from keras_precision._adapters import adapter_of
from keras_precision._adapters.callback import Callback, Logs
from keras_precision._adapters.paths import plan_of
from keras_precision.callbacks.journal import Journal
from keras_precision.callbacks.loss_scale import LossScaleProbe
from keras_precision.callbacks.memory import MemoryProbe
from keras_precision.callbacks.probe import Fit, Probe, Step
from keras_precision.callbacks.probe_set import ProbeSet
from keras_precision.callbacks.step_time import StepTimeProbe
from keras_precision.environment import Environment
from keras_precision.errors import InputError, NotMeasuredError, PlanError, PrecisionWarning
from keras_precision.files import check_destination
from keras_precision.findings import Finding, loss_scale_findings
from keras_precision.plan import PrecisionPlan
from keras_precision.report.text import show, summary
from keras_precision.result import Measurement, Result, Value

__all__ = ["PrecisionProfiler"]

_JOURNAL_STEPS = 32  # twice in the 64 rows that may be lost
_LOGGED = ("step_time_ms", "samples_per_second", "peak_memory_mb", "loss_scale", "skipped_steps")


class PrecisionProfiler(Callback):
    """Watches step time, throughput, memory, loss scale and skipped steps of a ``fit``.

    Works in ``fit`` of Keras 3 (TensorFlow, JAX, PyTorch) and of tf_keras, together with any other
    callbacks, again and again. It changes neither weights nor random state, and an error of its own
    never ends the training.

    With ``log_metrics=True``, these keys land in the epoch's ``logs``, so that History, CSVLogger,
    TensorBoard and the callbacks of MLflow and W&B record them. The profiler must then stand before
    those callbacks in the list.

    ======================  =======================================================================
    key                     meaning
    ======================  =======================================================================
    ``step_time_ms``        median time of one training step in ms, warm-up left out
    ``samples_per_second``  samples trained in a second of these steps
    ``peak_memory_mb``      peak memory in 10^6 bytes since the fit began; the result names the source
    ``loss_scale``          scale of the LossScaleOptimizer; absent where there is none
    ``skipped_steps``       steps since the fit began whose update was not applied
    ======================  =======================================================================

    Args:
        name: What tables call the run; the precision that most layers have, where None.
        probes: What to watch; step time, memory and loss scale where None.
        log_metrics: Whether to add the keys above to the epoch's logs.
        path: Where the result goes, as JSON. While the run lasts, rows are appended to it, so that a
            run that is killed leaves a readable result: at most 64 rows or one second are lost.
        verbose: 1 prints one summary at the end, 0 prints nothing, ``"auto"`` does as ``fit`` was told.

    Raises:
        InputError: An argument is of the wrong type.
        DestinationError: ``path`` cannot be written.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> profiler = PrecisionProfiler()
        >>> history = model.fit(np.ones((64, 4)), np.ones(64), batch_size=8, verbose=0, callbacks=[profiler])
        >>> profiler.result.value("skipped_steps")
        0
    """

    def __init__(
        self,
        name: str | None = None,
        probes: Probe | Sequence[Probe] | None = None,
        *,
        log_metrics: bool = False,
        path: str | os.PathLike[str] | None = None,
        verbose: Literal["auto", 0, 1] = "auto",
    ) -> None:
        super().__init__()
        if verbose not in ("auto", 0, 1):
            raise InputError(f"Expected verbose to be 'auto', 0 or 1. Received: {verbose!r}.")
        self.name = name
        self.log_metrics = log_metrics
        self.verbose = verbose
        self.path = None if path is None else check_destination(path)
        self.probes = _checked(probes)
        self._reset()

    def _reset(self) -> None:
        self._result: Result | None = None
        self._fit: Fit | None = None
        self._watching = ProbeSet((), self._note)
        self._notes: list[str] = []
        self._epochs: list[Measurement] = []
        self._own_ns = 0
        self._steps = 0
        self._batch = 0
        self._epoch: int | None = None
        self._resets: Sequence[None] = ()
        self._resets_before = 0
        self._cleanup = contextlib.ExitStack()
        self._journal: Journal | None = None
        self._counted: int | None = None  # samples that a loop of the user's own said

    @property
    def result(self) -> Result:
        """What was measured in the last ``fit``.

        Raises:
            NotMeasuredError: No ``fit`` with this profiler has ended yet.
        """
        if self._result is None:
            raise NotMeasuredError(
                "Expected a fit that ended. Received: a profiler that has not been used yet. Pass it to fit(callbacks=[profiler]) first."
            )
        return self._result

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with the loss scaling of the last ``fit``, the worst first; empty where all is well.

        Raises:
            NotMeasuredError: No ``fit`` with this profiler has ended yet.
        """
        return loss_scale_findings(self.result)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy settings and the last result, without the model: KerasTuner copies callbacks for each trial."""
        probes = [copy.copy(probe) for probe in self.probes]
        for probe in probes:
            probe.end()  # of a fit that is running, or was interrupted
        twin = type(self)(self.name, probes, log_metrics=self.log_metrics, path=self.path, verbose=self.verbose)
        twin._result = self._result
        return twin

    @contextlib.contextmanager
    def watch(self, model: Any, optimizer: Any = None) -> Iterator[Self]:
        """Watch a training loop of the user's own; each step of it goes into ``step``.

        Args:
            model: The model that is trained.
            optimizer: The Keras optimizer that trains it; None for the one that it was compiled with.
                Skipped steps are known where each step makes one update of this very object; a JAX
                loop keeps its state elsewhere, and they are unknown.

        Yields:
            The profiler; its result is there when the block ends.

        Raises:
            InputError: The profiler is watching already.
            ModelError: ``model`` is no Keras model.

        Example:
            >>> import keras
            >>> profiler = PrecisionProfiler(verbose=0)
            >>> with profiler.watch(model, keras.optimizers.SGD()):
            ...     for batch in np.split(x_test, 8):
            ...         with profiler.step(len(batch)) as step:
            ...             step.outputs = model(batch, training=True)  # and the update
            >>> profiler.result.value("samples")
            64
        """
        if self._counted is not None:
            raise InputError("Expected one loop at a time. Received: watch inside watch. Use a profiler for each loop.")
        adapter_of(model)
        self.set_model(model)
        self.set_params({})
        self._begin(optimizer or getattr(model, "optimizer", None))
        self._counted = 0
        self.on_epoch_begin(0)
        try:
            yield self
        finally:
            self._end_epoch()
            self.on_train_end()
            self._counted = None

    @contextlib.contextmanager
    def step(self, batch_size: int) -> Iterator[Step]:
        """Time one step of a loop that ``watch`` watches.

        Args:
            batch_size: Samples in the batch.

        Yields:
            A step: what is assigned to its ``outputs`` is waited for before the clock stops, so that
            work which the device does by itself (JAX, accelerators) is counted.

        Raises:
            InputError: There is no ``watch`` around it, or ``batch_size`` is not positive.
        """
        if self._counted is None:
            raise InputError("Expected step inside 'with profiler.watch(model, optimizer):'. Received: step alone.")
        if batch_size < 1:
            raise InputError(f"Expected batch_size >= 1. Received: {batch_size}.")
        step = Step()
        self.on_train_batch_begin(self._steps)
        yield step
        if step.outputs is not None and self._fit is not None:
            self._fit.adapter.compute.wait(step.outputs)
        self._counted += batch_size
        self.on_train_batch_end(self._steps)

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start to watch."""
        self._begin(None)

    def _begin(self, optimizer: Any) -> None:
        self._cleanup.close()  # of a fit that was interrupted
        self._reset()
        with self._guarded("nothing could be measured"):
            fit = Fit(self.model, adapter_of(self.model), optimizer)
            self._resets = self._cleanup.enter_context(fit.adapter.counting_resets(self.model))
            self._fit = fit
            self._watching = ProbeSet(self.probes, self._note)
            self._watching.each(lambda probe: probe.begin(fit))
        if self.path is not None and self._fit is not None:
            with self._guarded(f"nothing is written to '{self.path}' while the run lasts"):
                plan = self._plan()
                self._journal = Journal(self.path, Result(self._named(plan), (), self._environment(self._fit), plan))
                self._cleanup.callback(self._journal.close)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Note which epoch it is."""
        self._epoch, self._resets_before = epoch, len(self._resets)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Let the probes see a step begin."""
        entered = time.perf_counter_ns()
        self._batch = batch
        self._watching.step_begin()
        self._own_ns += time.perf_counter_ns() - entered

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Let the probes see a step end."""
        entered = time.perf_counter_ns()
        batches = self._batches_until(batch)
        if self._fit is not None:
            self._fit.batches += batches
            self._fit.loss = logs.get("loss") if logs else None
            # Several batches at once, from data of unknown length: the last group may have been shorter.
            self._fit.batches_exact &= batch == self._batch or self.params.get("steps") is not None
        self._steps += 1
        self._watching.step_end(batches)
        if self._journal is not None and (self._steps % _JOURNAL_STEPS == 0 or self._journal.due):
            self._write_journal()
        self._own_ns += time.perf_counter_ns() - entered

    def on_test_begin(self, logs: Logs = None) -> None:
        """End the epoch before its validation resets the model's metrics."""
        self._end_epoch()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """End the epoch, note its metrics, and add our own to the logs."""
        self._end_epoch()
        self._epochs += [
            Measurement("epoch", key, float(value), epoch) for key, value in (logs or {}).items() if _is_number(value)
        ]
        self._write_journal()
        if self.log_metrics and isinstance(logs, MutableMapping):
            values = self._values()
            logs.update({key: values[key] for key in _LOGGED if values.get(key) is not None})

    def on_train_end(self, logs: Logs = None) -> None:
        """Make the result, and print the summary."""
        result = Result(self.name or "unknown")
        with self._guarded("the result could not be made"):
            result = self._measured() or result
        self._result = replace(result, notes=tuple(self._notes))
        if self.path is not None:
            with self._guarded(f"the result could not be saved to '{self.path}'"):
                self._result.save(self.path)
        self._fit = None
        self._watching = ProbeSet((), self._note)
        verbose = self.params.get("verbose", 1) if self.verbose == "auto" else self.verbose
        if verbose:
            with self._guarded("the summary could not be printed"):
                show(summary(self._result, self.findings))

    def _measured(self) -> Result | None:
        self._cleanup.close()
        fit = self._fit
        if fit is None:
            return None
        plan, environment, measurements = self._plan(), self._environment(fit), tuple(self._measurements(fit))
        self._watching.each(lambda probe: probe.end())
        return Result(self._named(plan), measurements, environment, plan)

    def _named(self, plan: PrecisionPlan | None) -> str:
        if self.name or self._fit is None:
            return self.name or "unknown"
        return plan.default if plan else self._fit.adapter.policy_name(self.model)

    def _write_journal(self) -> None:
        """Append what was measured since the last time."""
        journal = self._journal
        if journal is not None:
            self._watching.each(journal.follow)
            with self._guarded(f"'{self.path}' could not be written"):
                journal.flush()

    def _batches_until(self, batch: int) -> int:
        """Batches of the step that ends with ``batch``: several under ``steps_per_execution``.

        The number that Keras gives for the last step of an epoch may lie behind the end of the data.
        """
        last = batch
        steps = self.params.get("steps")
        if steps is not None:
            last = min(batch, int(steps) - 1)
        return max(1, last - self._batch + 1)

    def _end_epoch(self) -> None:
        """Once an epoch: count its samples, and let the probes read what waits for the device."""
        fit, epoch = self._fit, self._epoch
        if fit is None or epoch is None:
            return
        self._epoch = None
        seen = self._samples_seen(fit)
        fit.samples = None if seen is None or fit.samples is None else fit.samples + seen
        self._watching.each(lambda probe: probe.epoch_end(epoch))

    def _samples_seen(self, fit: Fit) -> int | None:
        """Samples of this epoch; None where another callback's ``evaluate`` reset the count in its midst."""
        seen = self._counted
        if seen is None and len(self._resets) == self._resets_before:
            with self._guarded("samples could not be counted"):
                seen = fit.adapter.samples_seen(self.model)
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
            return plan_of(self.model)
        except PlanError as error:
            if str(error) not in self._notes:
                self._notes.append(str(error))
            return None

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """Training must go on, whatever fails in here: it becomes a note and a warning."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - see above
            self._note(f"{what}: {type(error).__name__}: {error}")

    def _note(self, text: str) -> None:
        self._notes.append(text)
        warnings.warn(f"PrecisionProfiler: {text}", PrecisionWarning, stacklevel=2)


def _checked(probes: Probe | Sequence[Probe] | None) -> tuple[Probe, ...]:
    """The probes of a profiler: the default ones where none are given."""
    if probes is None:
        return StepTimeProbe(), MemoryProbe(), LossScaleProbe()
    given = (probes,) if isinstance(probes, Probe) else tuple(probes)
    for probe in given:
        if not isinstance(probe, Probe):
            raise InputError(f"Expected probes to be instances of kp.Probe. Received: {probe!r}.")
    return given


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True
