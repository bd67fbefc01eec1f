"""PrecisionProfiler: what a precision does to a training run, watched from ``fit``."""

import contextlib
import copy
import sys
import time
import warnings
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any, Literal, Self

from keras_precision._adapters import adapter_of
from keras_precision._adapters.callback import Callback, Logs
from keras_precision._adapters.paths import plan_of
from keras_precision.callbacks.loss_scale import LossScaleProbe
from keras_precision.callbacks.memory import MemoryProbe
from keras_precision.callbacks.probe import Fit, Probe
from keras_precision.callbacks.step_time import StepTimeProbe
from keras_precision.environment import Environment
from keras_precision.errors import InputError, NotMeasuredError, PlanError, PrecisionWarning
from keras_precision.plan import PrecisionPlan
from keras_precision.report.text import summary
from keras_precision.result import Measurement, Result, Value

__all__ = ["PrecisionProfiler"]

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
        verbose: 1 prints one summary at the end, 0 prints nothing, ``"auto"`` does as ``fit`` was told.

    Raises:
        InputError: An argument is of the wrong type.

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
        probes: Sequence[Probe] | None = None,
        *,
        log_metrics: bool = False,
        verbose: Literal["auto", 0, 1] = "auto",
    ) -> None:
        super().__init__()
        for probe in probes or ():
            if not isinstance(probe, Probe):
                raise InputError(
                    f"Expected probes to be instances of keras_precision.callbacks.probe.Probe. Received: {probe!r}."
                )
        if verbose not in ("auto", 0, 1):
            raise InputError(f"Expected verbose to be 'auto', 0 or 1. Received: {verbose!r}.")
        self.name = name
        self.log_metrics = log_metrics
        self.verbose = verbose
        self.probes = tuple(probes) if probes is not None else (StepTimeProbe(), MemoryProbe(), LossScaleProbe())
        self._result: Result | None = None
        self._fit: Fit | None = None
        self._reset()

    def _reset(self) -> None:
        self._active: list[Probe] = []
        self._notes: list[str] = []
        self._epochs: list[Measurement] = []
        self._own_ns = 0
        self._steps = 0
        self._batch = 0
        self._epoch: int | None = None

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

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy settings and the last result, without the model: KerasTuner copies callbacks for each trial."""
        twin = type(self)(
            self.name, copy.deepcopy(self.probes, memo), log_metrics=self.log_metrics, verbose=self.verbose
        )
        twin._result = self._result
        return twin

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start to watch."""
        self._reset()
        self._active = list(self.probes)
        try:
            self._fit = Fit(self.model, adapter_of(self.model))
        except (ImportError, AttributeError, NotImplementedError) as error:  # a framework of a version we do not know
            self._active = []
            self._note(f"nothing could be measured: {type(error).__name__}: {error}")
            return
        fit = self._fit
        self._each(lambda probe: probe.begin(fit))

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Note which epoch it is."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Let the probes see a step begin."""
        entered = time.perf_counter_ns()
        self._batch = batch
        self._each(lambda probe: probe.step_begin())
        self._own_ns += time.perf_counter_ns() - entered

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Let the probes see a step end."""
        entered = time.perf_counter_ns()
        batches = self._batches_until(batch)
        if self._fit is not None:
            self._fit.batches += batches
            # Several batches at once, from data of unknown length: the last group may have been shorter.
            self._fit.batches_exact &= batch == self._batch or self.params.get("steps") is not None
        self._steps += 1
        self._each(lambda probe: probe.step_end(batches))
        self._own_ns += time.perf_counter_ns() - entered

    def on_test_begin(self, logs: Logs = None) -> None:
        """End the epoch before its validation resets the model's metrics."""
        self._end_epoch()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """End the epoch, note its metrics, and add our own to the logs."""
        self._end_epoch(epoch)
        self._epochs += [
            Measurement("epoch", key, float(value), epoch) for key, value in (logs or {}).items() if _is_number(value)
        ]
        if self.log_metrics and isinstance(logs, MutableMapping):
            values = self._values()
            logs.update({key: values[key] for key in _LOGGED if values.get(key) is not None})

    def on_train_end(self, logs: Logs = None) -> None:
        """Make the result, and print the summary."""
        fit = self._fit
        if fit is None:
            self._result = Result(self.name or "unknown", notes=tuple(self._notes))
            return
        plan, environment, measurements = self._plan(), self._environment(fit), tuple(self._measurements(fit))
        self._each(lambda probe: probe.end())
        name = self.name or (plan.default if plan else fit.adapter.policy_name(self.model))
        self._result = Result(name, measurements, environment, plan, tuple(self._notes))
        self._fit, self._active = None, []
        verbose = self.params.get("verbose", 1) if self.verbose == "auto" else self.verbose
        if verbose:
            sys.stdout.write(summary(self._result) + "\n")

    def _batches_until(self, batch: int) -> int:
        """Batches of the step that ends with ``batch``: several under ``steps_per_execution``.

        The number that Keras gives for the last step of an epoch may lie behind the end of the data.
        """
        last = batch
        steps = self.params.get("steps")
        if steps is not None:
            last = min(batch, int(steps) - 1)
        return max(1, last - self._batch + 1)

    def _end_epoch(self, epoch: int | None = None) -> None:
        """Once an epoch: count its samples, and let the probes read what waits for the device."""
        fit, number = self._fit, self._epoch if epoch is None else epoch
        if fit is None or self._epoch is None or number is None:
            return
        self._epoch = None
        self._count_samples(fit)
        self._each(lambda probe: probe.epoch_end(number))

    def _count_samples(self, fit: Fit) -> None:
        try:
            seen = fit.adapter.samples_seen(self.model)
        except (AttributeError, TypeError, ValueError) as error:  # counters that Keras keeps to itself may move
            self._note(f"samples could not be counted: {type(error).__name__}: {error}")
            seen = None
        fit.samples = None if seen is None or fit.samples is None else fit.samples + seen

    def _values(self) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for probe in list(self._active):
            with self._guarded(probe):
                values.update(probe.values())
        return values

    def _measurements(self, fit: Fit) -> Iterator[Measurement]:
        for metric, value in self._values().items():
            yield Measurement("fit", metric, value)
        yield Measurement("fit", "batches", fit.batches if fit.batches_exact else None)
        yield Measurement("fit", "samples", fit.samples)
        yield Measurement("fit", "profiler_us_per_step", self._own_ns / 1e3 / max(1, self._steps))
        yield from self._epochs
        for probe in list(self._active):
            with self._guarded(probe):
                yield from tuple(probe.rows())

    def _environment(self, fit: Fit) -> Environment:
        environment = fit.adapter.compute.environment()
        for probe in list(self._active):
            with self._guarded(probe):
                environment = environment.with_sources(probe.sources())
        return environment

    def _plan(self) -> PrecisionPlan | None:
        try:
            return plan_of(self.model)
        except PlanError as error:
            self._notes.append(str(error))
            return None

    def _each(self, act: Callable[[Probe], None]) -> None:
        for probe in self._active:
            try:
                act(probe)
            except Exception as error:  # noqa: BLE001 - training must go on, whatever a probe does
                self._drop(probe, error)

    @contextlib.contextmanager
    def _guarded(self, probe: Probe) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - training must go on, whatever a probe does
            self._drop(probe, error)

    def _drop(self, probe: Probe, error: Exception) -> None:
        self._active = [other for other in self._active if other is not probe]
        self._note(f"the probe '{probe.name}' failed and was switched off: {type(error).__name__}: {error}")

    def _note(self, text: str) -> None:
        self._notes.append(text)
        warnings.warn(f"PrecisionProfiler: {text}", PrecisionWarning, stacklevel=2)


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True
