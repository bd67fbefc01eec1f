"""PrecisionProfiler: what a precision does to a training run, watched from ``fit``."""

import contextlib
import copy
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

from keras_precision._adapters import adapter_of
from keras_precision._adapters.training.callback import Callback, Logs
from keras_precision.callbacks.fit_frame import Caller
from keras_precision.callbacks.probes.loss_scale import LossScaleProbe
from keras_precision.callbacks.probes.memory import MemoryProbe
from keras_precision.callbacks.probes.numerics import NumericsProbe
from keras_precision.callbacks.probes.probe import Probe, Step
from keras_precision.callbacks.probes.step_time import StepTimeProbe
from keras_precision.callbacks.recording import Recording, Subject
from keras_precision.callbacks.summary_notes import remarks
from keras_precision.core.errors import InputError, NotMeasuredError, PrecisionWarning
from keras_precision.core.result import Result
from keras_precision.core.system.files import check_destination
from keras_precision.findings.finding import Finding, in_order, judge
from keras_precision.findings.layer_rules import LAYER_RULES
from keras_precision.findings.loss_scale_rules import training_findings
from keras_precision.report.text import show, summary

__all__ = ["PrecisionProfiler"]

_BUSY = (
    "PrecisionProfiler: expected one fit at a time. Received: a fit that began while this profiler watched another; it is "
    "not recorded. Use a profiler for each fit."
)
_CLAIM = threading.Lock()  # of all profilers: it is held for a moment, and a lock of one's own cannot be pickled


class PrecisionProfiler(Callback):
    """Watches step time, throughput, memory, loss scale and skipped steps of a ``fit``.

    Works in ``fit`` of Keras 3 (TensorFlow, JAX, PyTorch) and of tf_keras, together with any other
    callbacks, again and again. It changes neither weights nor random state, and an error of its own
    never ends the training.

    With ``log_metrics=True``, these keys land in the epoch's ``logs``, so that History, CSVLogger,
    TensorBoard and the callbacks of MLflow and W&B record them. The profiler must then stand before
    those callbacks in the list.

    | key | meaning |
    | :-- | :-- |
    | ``step_time_ms`` | median time of one training step in ms, warm-up left out |
    | ``samples_per_second`` | samples trained in a second of these steps |
    | ``peak_memory_mb`` | peak memory in 10^6 bytes since the fit began; the result names the source |
    | ``loss_scale`` | scale of the LossScaleOptimizer; absent where there is none |
    | ``skipped_steps`` | steps since the fit began whose update was not applied |

    Args:
        name: What tables call the run; the precision that most layers have, where None.
        probes: What to watch; step time, memory and loss scale where None.
        log_metrics: Whether to add the keys above to the epoch's logs.
        layer_stats_every: Adds ``kp.NumericsProbe(layer_stats_every)``: it tells which layer makes the first value that
            is not finite, and, every so many steps, what goes through each layer. None for neither.
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
        layer_stats_every: int | None = None,
        path: str | os.PathLike[str] | None = None,
        verbose: Literal["auto", 0, 1] = "auto",
    ) -> None:
        super().__init__()
        if name is not None and not isinstance(name, str):
            raise InputError(f"Expected name to be a text or None. Received: {name!r}. Probes go into probes=[...].")
        if verbose not in ("auto", 0, 1):
            raise InputError(f"Expected verbose to be 'auto', 0 or 1. Received: {verbose!r}.")
        self.name = name
        self.log_metrics = log_metrics
        self.verbose = verbose
        self.path = None if path is None else check_destination(path)
        self.layer_stats_every = layer_stats_every
        numerics = () if layer_stats_every is None else (NumericsProbe(layer_stats_every),)
        self.probes = (*_checked(probes), *numerics)
        self._result: Result | None = None
        self._recording: Recording | None = None
        self._others: list[Caller] = []  # fits that began while one was recorded
        self._given: dict[tuple[int, str], Any] = {}  # model and params by thread: fits may begin side by side

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
        """What is wrong with the last ``fit``, the worst first; empty where all is well.

        Raises:
            NotMeasuredError: No ``fit`` with this profiler has ended yet.
        """
        return in_order((*training_findings(self.result), *judge(self.result, LAYER_RULES)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy settings and the last result, without the model: KerasTuner copies callbacks for each trial."""
        probes = [copy.copy(probe) for probe in self.probes]
        for probe in probes:
            probe.end()  # of a fit that is running, or was interrupted
        twin = type(self)(self.name, probes, log_metrics=self.log_metrics, path=self.path, verbose=self.verbose)
        twin.layer_stats_every = self.layer_stats_every  # its probe is among the others
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
        if self._recording is not None and self._recording.subject.own_loop:
            raise InputError("Expected one loop at a time. Received: watch inside watch. Use a profiler for each loop.")
        adapter_of(model)
        subject = Subject(model, {}, optimizer or getattr(model, "optimizer", None), own_loop=True)
        recording = self._begin(subject, None)
        if recording is None:
            raise InputError("Expected one fit or loop at a time. Received: watch inside fit. Use a profiler for each.")
        recording.epoch_begin(0)
        try:
            yield self
        finally:
            recording.end_epoch()
            self._end(recording)

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
        recording = self._recording
        if recording is None or recording.samples is None:
            raise InputError("Expected step inside 'with profiler.watch(model, optimizer):'. Received: step alone.")
        if batch_size < 1:
            raise InputError(f"Expected batch_size >= 1. Received: {batch_size}.")
        step = Step()
        recording.step_begin(recording.steps)
        yield step
        if step.outputs is not None:
            recording.wait(step.outputs)
        recording.samples += batch_size
        recording.step_end(recording.steps, None)

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Take verbose, epochs and steps from ``fit``."""
        super().set_params(params)
        self._given[threading.get_ident(), "params"] = params

    def set_model(self, model: Any) -> None:
        """Take the model from ``fit``."""
        super().set_model(model)
        self._given[threading.get_ident(), "model"] = model

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start to watch; another fit, while one is watched, is left alone."""
        caller, thread = Caller(2), threading.get_ident()
        model = self._given.pop((thread, "model"), self.model)
        params = self._given.pop((thread, "params"), self.params)
        if self._begin(Subject(model, params, caller=caller), caller) is None:
            warnings.warn(_BUSY, PrecisionWarning, stacklevel=2)

    def _begin(self, subject: Subject, caller: Caller | None) -> Recording | None:
        """Begin a recording; where another is going on, note who asked, and return None."""
        with _CLAIM:  # a fit that begins at the same moment in another thread must see this one
            current = self._recording
            if current is not None and (current.subject.caller is None or current.subject.caller.is_running(caller)):
                self._others += [caller] if caller else []
                return None
            self._others.clear()
            self._recording = recording = Recording(subject, self.name, self.path)
        if current is not None:
            current.close()  # it was interrupted
        self._result = None
        recording.begin(self.probes)
        return recording

    def _mine(self) -> Recording | None:
        """The recording that a hook is for; None where it comes from a fit that is not recorded."""
        return self._told_apart() if self._others else self._recording

    def _told_apart(self) -> Recording | None:
        recording, thread = self._recording, threading.get_ident()
        self._others = [other for other in self._others if other.is_running()]
        caller = None if recording is None else recording.subject.caller
        elsewhere = caller is not None and caller.thread != thread
        inside = any(other.thread == thread for other in self._others)
        return None if elsewhere or inside else recording

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Note which epoch it is."""
        recording = self._mine()
        if recording is not None:
            recording.epoch_begin(epoch)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Let the probes see a step begin."""
        recording = self._mine()
        if recording is not None:
            recording.step_begin(batch)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Let the probes see a step end."""
        recording = self._mine()
        if recording is not None:
            recording.step_end(batch, logs)

    def on_test_begin(self, logs: Logs = None) -> None:
        """End the epoch before its validation resets the model's metrics."""
        recording = self._mine()
        if recording is not None:
            recording.end_epoch()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """End the epoch, note its metrics, and add our own to the logs."""
        recording = self._mine()
        if recording is not None:
            recording.end_epoch()
            recording.epoch_metrics(epoch, logs)
            if self.log_metrics:
                recording.add_metrics(logs)

    def on_train_end(self, logs: Logs = None) -> None:
        """Make the result, and print the summary."""
        recording = self._mine()
        if recording is not None:
            self._end(recording)

    def _end(self, recording: Recording) -> None:
        self._result = recording.finish()
        self._recording = None
        verbose = recording.subject.params.get("verbose", 1) if self.verbose == "auto" else self.verbose
        if verbose:
            with recording.guarded("the summary could not be printed"):
                show("\n".join([summary(self._result, self.findings), *remarks(self._result)]))


def _checked(probes: Probe | Sequence[Probe] | None) -> tuple[Probe, ...]:
    """The probes of a profiler: the default ones where none are given."""
    if probes is None:
        return StepTimeProbe(), MemoryProbe(), LossScaleProbe()
    if not isinstance(probes, Probe | Iterable):
        raise InputError(f"Expected probes to be instances of kp.Probe. Received: {probes!r}.")
    given = (probes,) if isinstance(probes, Probe) else tuple(probes)
    for probe in given:
        if not isinstance(probe, Probe):
            raise InputError(f"Expected probes to be instances of kp.Probe. Received: {probe!r}.")
    return given
