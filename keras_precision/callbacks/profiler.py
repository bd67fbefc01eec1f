"""PrecisionProfiler: speed, memory and numerics of a training run, recorded from ``fit``."""

import contextlib
import copy
import math
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

from keras_precision._adapters import adapter_of
from keras_precision._adapters.training.callback import Callback, Logs
from keras_precision.callbacks.fit_frame import FitFrame
from keras_precision.callbacks.probes.health import HealthProbe
from keras_precision.callbacks.probes.loss_scale import LossScaleProbe
from keras_precision.callbacks.probes.memory import MemoryProbe
from keras_precision.callbacks.probes.numerics import NumericsProbe
from keras_precision.callbacks.probes.probe import LoopStep, Probe
from keras_precision.callbacks.probes.step_time import StepTimeProbe
from keras_precision.callbacks.recording import Recording, Subject
from keras_precision.callbacks.summary_notes import summary_notes
from keras_precision.core.errors import InputError, NotMeasuredError, PrecisionWarning
from keras_precision.core.result import Result
from keras_precision.core.system.files import check_destination
from keras_precision.findings.finding import Finding, apply_rules, by_severity
from keras_precision.findings.layer_rules import LAYER_RULES
from keras_precision.findings.loss_scale_rules import training_findings
from keras_precision.report.text import show, summary

__all__ = ["PrecisionProfiler"]

_BUSY = (
    "PrecisionProfiler: expected one fit at a time. Received: a fit that began while this profiler recorded another; it is "
    "not recorded. Use a separate profiler for every fit."
)
# Shared by all profilers: it is locked only for a moment, and a profiler with a lock as attribute could not be pickled.
_BEGIN_LOCK = threading.Lock()


class PrecisionProfiler(Callback):
    """Records step time, throughput, memory, loss scale and skipped steps of a ``fit``.

    Works in ``fit`` of Keras 3 (TensorFlow, JAX, PyTorch) and of tf_keras, together with any other
    callbacks, and can be reused. It changes neither weights nor random state, and an error of its own
    never stops the training.

    With ``log_metrics=True``, these keys are added to the epoch's ``logs``, so that History, CSVLogger,
    TensorBoard and the callbacks of MLflow and W&B record them. The profiler must then precede
    those callbacks in the list.

    | key | meaning |
    | :-- | :-- |
    | ``step_time_ms`` | median time of one training step in ms, without warm-up |
    | ``samples_per_second`` | samples trained per second in these steps |
    | ``peak_memory_mb`` | peak memory in 10^6 bytes since the fit began; the result names the source |
    | ``loss_scale`` | scale of the LossScaleOptimizer; absent if there is none |
    | ``skipped_steps`` | steps since the fit began whose update was not applied |
    | ``finite`` | 1 while all losses and weights are finite, else 0 |

    Args:
        name: Name of the run in tables; None for the precision that most layers have.
        probes: What to measure; None for step time, memory and loss scale.
        log_metrics: Whether to add the keys above to the epoch's logs.
        layer_stats_every: Adds ``kp.NumericsProbe(layer_stats_every)``, which finds the layer where the first non-finite
            value arises, and measures every layer at this interval of steps. None adds no such probe.
        examination_limit_s: The time, in seconds, in which the steps after the first sign of trouble (a loss that is not
            finite, an epoch without an update) are replayed to find the layer where it began, once a fit; 0 for none.
            ``layer_stats_every`` replays the failed steps themselves, since it keeps them.
        path: JSON file for the result, written when the run ends. Until then, rows are appended to ``PATH.partial``, which
            ``Result.load(PATH)`` reads where there is no finished result: a killed run loses at most 64 rows or one second.
        verbose: 1 prints one summary at the end, 0 prints nothing, ``"auto"`` follows ``verbose`` of ``fit``.

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
        examination_limit_s: float = 5.0,
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
        self.examination_limit_s = _checked_limit(examination_limit_s)
        numerics = () if layer_stats_every is None else (NumericsProbe(layer_stats_every),)
        self.probes = _with_health((*_checked(probes), *numerics), examination_limit_s)
        self._result: Result | None = None
        self._recording: Recording | None = None
        self._unrecorded: list[FitFrame] = []  # fits that began while another was recorded
        self._arguments: dict[tuple[int, str], Any] = {}  # model and params by thread: fits may begin at the same time

    @property
    def result(self) -> Result:
        """The measurements of the last ``fit``.

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
        """Problems of the last ``fit``, the most severe first; empty if there are none.

        Raises:
            NotMeasuredError: No ``fit`` with this profiler has ended yet.
        """
        return by_severity((*apply_rules(self.result, LAYER_RULES), *training_findings(self.result)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy settings and the last result, without the model: KerasTuner copies callbacks for every trial."""
        probes = [copy.copy(probe) for probe in self.probes]
        for probe in probes:
            probe.end()  # It may belong to a fit that is running, or was interrupted.
        duplicate = type(self)(self.name, probes, log_metrics=self.log_metrics, path=self.path, verbose=self.verbose)
        duplicate.layer_stats_every = self.layer_stats_every  # Its probe is already in the list.
        duplicate.examination_limit_s = self.examination_limit_s
        duplicate._result = self._result
        return duplicate

    @contextlib.contextmanager
    def watch(self, model: Any, optimizer: Any = None) -> Iterator[Self]:
        """Record a custom training loop, whose steps run inside ``step``.

        Args:
            model: The model that is trained.
            optimizer: The Keras optimizer that trains it; None for the one that it was compiled with.
                Skipped steps are counted if every step updates this optimizer object once; a JAX
                loop stores the state elsewhere, so that they are unknown.

        Yields:
            The profiler; its result is complete when the block ends.

        Raises:
            InputError: The profiler is already recording.
            ModelError: ``model`` is not a Keras model.

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
            raise InputError(
                "Expected one loop at a time. Received: watch inside watch. Use a separate profiler for every loop."
            )
        adapter_of(model)
        subject = Subject(model, {}, optimizer or getattr(model, "optimizer", None), own_loop=True)
        recording = self._begin(subject, None)
        if recording is None:
            raise InputError(
                "Expected one fit or loop at a time. Received: watch inside fit. Use a separate profiler for both."
            )
        recording.epoch_begin(0)
        try:
            yield self
        finally:
            recording.end_epoch()
            self._end(recording)

    @contextlib.contextmanager
    def step(self, batch_size: int) -> Iterator[LoopStep]:
        """Time one step of a custom training loop inside ``watch``.

        Args:
            batch_size: Number of samples in the batch.

        Yields:
            A step: the clock stops when the tensors assigned to its ``outputs`` are computed, so that
            asynchronous work of the device (JAX, accelerators) is included.

        Raises:
            InputError: It is not called inside ``watch``, or ``batch_size`` is not positive.
        """
        recording = self._recording
        if recording is None or recording.samples is None:
            raise InputError("Expected step inside 'with profiler.watch(model, optimizer):'. Received: step alone.")
        if batch_size < 1:
            raise InputError(f"Expected batch_size >= 1. Received: {batch_size}.")
        step = LoopStep()
        recording.step_begin(recording.steps)
        yield step
        if step.outputs is not None:
            recording.wait(step.outputs)
        recording.samples += batch_size
        recording.step_end(recording.steps, None)

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Receive verbose, epochs and steps from ``fit``."""
        super().set_params(params)
        self._arguments[threading.get_ident(), "params"] = params

    def set_model(self, model: Any) -> None:
        """Receive the model from ``fit``."""
        super().set_model(model)
        self._arguments[threading.get_ident(), "model"] = model

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start recording; a fit that begins while another is recorded is ignored, with a warning."""
        frame, thread = FitFrame(2), threading.get_ident()
        model = self._arguments.pop((thread, "model"), self.model)
        params = self._arguments.pop((thread, "params"), self.params)
        if self._begin(Subject(model, params, fit_frame=frame), frame) is None:
            warnings.warn(_BUSY, PrecisionWarning, stacklevel=2)

    def _begin(self, subject: Subject, frame: FitFrame | None) -> Recording | None:
        """Begin a recording, or return None during another one."""
        with _BEGIN_LOCK:  # Another thread may begin a fit at the same moment.
            current = self._recording
            if current is not None and (
                current.subject.fit_frame is None or current.subject.fit_frame.is_running(frame)
            ):
                self._unrecorded += [frame] if frame else []
                return None
            self._unrecorded.clear()
            self._recording = recording = Recording(subject, self.name, self.path)
        if current is not None:
            current.close()  # Its fit was interrupted.
        self._result = None
        recording.begin(self.probes)
        return recording

    def _current_recording(self) -> Recording | None:
        """Return the recording of the fit that called a hook; None if that fit is not recorded."""
        return self._recording_of_this_thread() if self._unrecorded else self._recording

    def _recording_of_this_thread(self) -> Recording | None:
        recording, thread = self._recording, threading.get_ident()
        self._unrecorded = [frame for frame in self._unrecorded if frame.is_running()]
        frame = None if recording is None else recording.subject.fit_frame
        in_other_thread = frame is not None and frame.thread != thread
        in_nested_fit = any(other.thread == thread for other in self._unrecorded)
        return None if in_other_thread or in_nested_fit else recording

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Record the number of the epoch."""
        recording = self._current_recording()
        if recording is not None:
            recording.epoch_begin(epoch)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Call the probes before a step."""
        recording = self._current_recording()
        if recording is not None:
            recording.step_begin(batch)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Call the probes after a step."""
        recording = self._current_recording()
        if recording is not None:
            recording.step_end(batch, logs)

    def on_test_begin(self, logs: Logs = None) -> None:
        """End the epoch before its validation resets the model's metrics."""
        recording = self._current_recording()
        if recording is not None:
            recording.end_epoch()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """End the epoch, record its metrics, and add those of the probes to the logs."""
        recording = self._current_recording()
        if recording is not None:
            recording.end_epoch()
            recording.epoch_metrics(epoch, logs)
            if self.log_metrics:
                recording.add_metrics(logs)

    def on_train_end(self, logs: Logs = None) -> None:
        """Build the result, and print the summary."""
        recording = self._current_recording()
        if recording is not None:
            self._end(recording)

    def _end(self, recording: Recording) -> None:
        self._result = recording.finish()
        self._recording = None
        verbose = recording.subject.params.get("verbose", 1) if self.verbose == "auto" else self.verbose
        if verbose:
            with recording.guarded("the summary could not be printed"):
                show("\n".join([summary(self._result, self.findings), *summary_notes(self._result)]))


def _checked(probes: Probe | Sequence[Probe] | None) -> tuple[Probe, ...]:
    """Return the probes as a tuple; the default ones for None."""
    if probes is None:
        return StepTimeProbe(), MemoryProbe(), LossScaleProbe()
    if not isinstance(probes, Probe | Iterable):
        raise InputError(f"Expected probes to be instances of kp.Probe. Received: {probes!r}.")
    probes = (probes,) if isinstance(probes, Probe) else tuple(probes)
    for probe in probes:
        if not isinstance(probe, Probe):
            raise InputError(f"Expected probes to be instances of kp.Probe. Received: {probe!r}.")
    return probes


def _checked_limit(seconds: float) -> float:
    if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise InputError(
            f"Expected examination_limit_s to be a time in seconds, or 0 for no examination. Received: {seconds!r}."
        )
    return seconds


def _with_health(probes: tuple[Probe, ...], limit_s: float) -> tuple[Probe, ...]:
    """Add the probe of the run's health; it leaves the examination to ``NumericsProbe``, which keeps the steps themselves."""
    if any(isinstance(probe, HealthProbe) for probe in probes):
        return probes
    keeps_steps = any(isinstance(probe, NumericsProbe) for probe in probes)
    return (*probes, HealthProbe(0.0 if keeps_steps else limit_s))
