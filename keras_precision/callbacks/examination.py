"""Examination: the steps after the first sign of trouble, recorded and replayed until one shows where it breaks."""

import contextlib
import math
import time
from collections.abc import Iterator

from keras_precision._adapters.tracing.step_observer import StepObserver, random_state_preserved
from keras_precision._adapters.training.step_replay import Capture, capture_of
from keras_precision.callbacks.cure import cure_rows
from keras_precision.callbacks.first_failure import FailedStep, first_failure
from keras_precision.callbacks.probes.probe import FitState
from keras_precision.core.observation import origin_rows
from keras_precision.core.result import Measurement

__all__ = ["Examination"]

_MAX_STEPS = 8  # recorded one by one: what breaks now and then is for ``NumericsProbe``, which keeps all steps


class Examination:
    """Records single steps of a fit that broke, until one of them fails again, and finds its origin, and its cure at the epoch's end.

    Attributes:
        how: How the step was replayed, or why there was none.
    """

    def __init__(self, fit: FitState, limit_s: float) -> None:
        self.how = "unknown: no step failed after the first sign of trouble"
        self._fit, self._limit_s, self._spent_s, self._steps = fit, limit_s, 0.0, 0
        self._failed: FailedStep | None = None
        self._observer = StepObserver(fit.adapter, fit.model)
        capture = capture_of(self._observer.state, 1)
        self._capture: Capture | None = None if isinstance(capture, str) else capture
        if isinstance(capture, str):
            self.how = f"unknown: {capture}"
        else:
            fit.resources.callback(capture.remove)

    def step_begin(self) -> None:
        """Record the step that begins."""
        if self._capture is not None:
            self._capture.step_begin()

    def step_end(self) -> Iterator[Measurement]:
        """Yield what the recorded step shows, if it failed."""
        capture = self._capture
        if capture is None or not capture.batches:
            return
        self._steps += 1
        with self._timed():
            failed = first_failure(capture, self._observer, trained=self._fit.batches)
        if failed is not None and failed.origin is not None:
            self._failed, self._steps = failed, _MAX_STEPS
            self.how = f"the step was replayed outside of the training, {failed.observation.how}"
            finite = failed.step.loss is None or math.isfinite(failed.step.loss)
            yield from origin_rows(failed.origin, failed.number, loss_is_finite=finite)
        if self._steps == _MAX_STEPS or self._spent_s > self._limit_s:
            self._end()

    def epoch_end(self) -> Iterator[Measurement]:
        """Yield what cures the step that failed; within an epoch, the model's variables have no values on JAX."""
        failed, self._failed = self._failed, None
        if failed is not None:
            with self._timed():
                yield from cure_rows(self._fit, failed, time.monotonic() + self._limit_s - self._spent_s)

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            with random_state_preserved():
                yield
        finally:
            self._spent_s += time.monotonic() - began

    def _end(self) -> None:
        """Stop recording."""
        if self._capture is not None:
            self._capture.remove()
            self._capture = None
