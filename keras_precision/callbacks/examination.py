"""Examination: the steps after the first sign of trouble, recorded and replayed until one shows where it breaks, and why."""

import contextlib
import math
import time
from collections.abc import Iterator

from keras_precision._adapters.tracing.step_observer import Batch, StepObserver, random_state_preserved
from keras_precision._adapters.training.step_replay import Capture, capture_of
from keras_precision.callbacks.cause import CauseSearch
from keras_precision.callbacks.first_failure import FailedStep, first_failure
from keras_precision.callbacks.probes.probe import FitState
from keras_precision.core.observation import origin_rows
from keras_precision.core.result import Measurement

__all__ = ["Examination"]

_MAX_STEPS = 64  # recorded one by one: what breaks less often is for ``NumericsProbe``, which keeps all steps
_MAX_EPOCHS = 2  # the batch that broke the weights of the first comes again in the next
_MAX_BATCHES = 32  # kept where the weights are lost, to repeat training on them from new weights


class Examination:
    """Records single steps of a fit that broke, until one of them fails again; at the epoch's end it finds the cause.

    Args:
        fit: The state of the fit.
        limit_s: The time for all of it in seconds.
        lost: Whether the weights are lost, so that every step fails: then the batches alone are recorded.

    Attributes:
        how: How the step was replayed, or why there was none.
    """

    def __init__(self, fit: FitState, limit_s: float, *, lost: bool) -> None:
        self.how = "unknown: no step failed after the first sign of trouble"
        self._fit, self._limit_s, self._spent_s, self._steps = fit, limit_s, 0.0, 0
        self._lost, self._batches, self._epochs = lost, list[Batch](), 0
        self._failed: FailedStep | None = None
        self._search = CauseSearch(fit)
        self._observer = StepObserver(fit.adapter, fit.model)
        capture = capture_of(self._observer.state, _MAX_BATCHES if lost else 1)
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
        if capture is None or capture.batch is None:
            return
        self._steps += 1
        self._batches.append(capture.batch)
        if self._lost:
            if self._steps == _MAX_BATCHES:
                self._end()
            return
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
        """Yield the cause of the break, and its cure; within an epoch, the model's variables have no values on JAX."""
        failed, batches = self._failed, self._batches
        if failed is None and not (self._lost and batches):
            return
        with self._timed():
            deadline = time.monotonic() + self._limit_s - self._spent_s
            rows = list(self._search.rows(failed, batches, deadline))
        self._epochs += 1
        is_repeated = any(row.metric == "first_non_finite" for row in rows)
        if is_repeated:
            self.how = "training was repeated from new weights, on the batches after the break"
        if not self._lost or is_repeated or self._epochs == _MAX_EPOCHS or self._spent_s > self._limit_s:
            self._failed, self._batches = None, []
            self._end()
        yield from rows

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
