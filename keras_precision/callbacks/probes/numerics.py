"""NumericsProbe: the layer where the first non-finite value arose, and the statistics of every layer."""

import math
from collections.abc import Iterator, Mapping

from keras_precision._adapters.tracing.step_observer import StepObserver
from keras_precision._adapters.training.loss_scaling import LossScaling
from keras_precision._adapters.training.open_state import training_state_of
from keras_precision._adapters.training.step_replay import Capture, capture_of
from keras_precision.callbacks.first_failure import first_failure
from keras_precision.callbacks.probes.probe import FitState, Probe
from keras_precision.core.errors import InputError
from keras_precision.core.observation import origin_rows, statistics_rows
from keras_precision.core.result import Measurement, Value

__all__ = ["NumericsProbe"]

_MAX_ORIGINS = 4  # searched for in one fit
_MAX_HARMLESS = 2  # of them, those with a finite loss: dynamic loss scaling causes many while it adjusts its scale


class NumericsProbe(Probe):
    """Finds where the first non-finite value arose, and records statistics of the activations and gradients of layers.

    It stores the last batches, and a copy of the weights, of the optimizer's state and of the random state before
    them. When a loss or a weight is no longer finite, or loss scaling skipped a step, these steps are replayed up to
    the one that failed. That step is run once more with a tap on every layer, in the way that the model trains,
    compiled or eager. Afterwards the whole state is restored: the training continues unchanged.

    The copies take as much memory as the weights and the optimizer's state, and as ``window`` batches.

    Args:
        layer_stats_every: Steps between two measurements of every layer, forward and backward, on the batch
            that was just trained; None for no such measurements.
        window: Number of batches that are stored, and after which the state is copied again.

    Raises:
        InputError: An argument is not a whole number above 0.

    Example:
        >>> NumericsProbe(layer_stats_every=100).values()["origins_found"]
        0
    """

    name = "numerics"

    def __init__(self, layer_stats_every: int | None = None, window: int = 32) -> None:
        for name, value in (("layer_stats_every", layer_stats_every), ("window", window)):
            required = value is not None or name == "window"
            if required and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InputError(f"Expected {name} to be a whole number >= 1. Received: {value!r}.")
        self.layer_stats_every = layer_stats_every
        self.window = window
        self._reset("not used yet")

    def _reset(self, why_unknown: str) -> None:
        self._fit: FitState | None = None
        self._capture: Capture | None = None
        self._observer: StepObserver | None = None
        self._scaling: LossScaling | None = None
        self._skipped: int | None = 0
        self._why_unknown, self._how, self._steps, self._origins = why_unknown, "", 0, 0
        self._failure: Exception | None = None
        self._last_reported = 0  # number of the last step whose origin was reported
        self._harmless = 0  # origins with a finite loss
        self._done = self._loss_was_finite = False
        self._rows: list[Measurement] = []

    def begin(self, fit: FitState) -> None:
        """Wrap the train function of the model, to store batches and state."""
        self._reset(
            "unknown: the batches of a custom training loop are not recorded; kp.diagnose(model, data) observes one"
        )
        if fit.own_loop:
            return
        inside = training_state_of(fit.adapter, fit.model)
        capture = capture_of(inside, self.window)
        if isinstance(capture, str):
            self._why_unknown = f"unknown: {capture}"
            return
        self._fit, self._capture, self._loss_was_finite = fit, capture, True
        capture.on_full = self._check_window_in_step
        fit.resources.callback(capture.remove)
        self._scaling = fit.adapter.loss_scaling(fit.model)
        self._scaling.begin()

    def step_begin(self) -> None:
        """Wrap the train function again where Keras has rebuilt it."""
        if self._capture is not None:
            self._capture.step_begin()

    def step_end(self, batches: int) -> None:
        """Search for a failure if the loss is no longer finite, and measure the layers when they are due."""
        fit, capture = self._fit, self._capture
        if fit is None or capture is None:
            return
        if self._failure is not None:  # raised here, where it switches the probe off and not the training
            raise self._failure
        self._steps += 1
        if self._loss_was_finite and fit.loss is not None and not math.isfinite(fit.loss):
            self._loss_was_finite = False  # Keras's mean stays non-finite for the rest of the epoch.
            self._search(fit, capture)
        if self.layer_stats_every and self._steps % self.layer_stats_every == 0:
            batch = capture.batch
            if batch is not None:
                scale = self._scaling.scale() if self._scaling else None
                observation = self._step_observer(fit).observe(batch, scale=scale or 1.0)
                self._how = observation.how
                self._rows += statistics_rows(observation, fit.batches)

    def epoch_end(self, epoch: int) -> None:
        """Check the stored steps; the next epoch begins a new mean of losses."""
        self._check_window()
        self._loss_was_finite = True

    def _check_window_in_step(self) -> None:
        """Check the window from within a training step, which no failure of this probe may end."""
        try:
            self._check_window()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised again outside the step
            self._failure = error
            if self._capture is not None:
                self._capture.on_full = None

    def _check_window(self) -> None:
        """Before stored steps are dropped, search them if one was skipped, or if weights are no longer finite."""
        fit, capture = self._fit, self._capture
        if fit is None or capture is None or self._done:
            return
        before, scaling = self._skipped, self._scaling
        skipped = scaling.skipped(fit.batches if fit.batches_exact else None) if scaling else None
        self._skipped = skipped
        skipped_since = skipped is not None and before is not None and skipped > before
        if (skipped_since and self._harmless < _MAX_HARMLESS) or not capture.weights_are_finite():
            self._search(fit, capture)

    def _search(self, fit: FitState, capture: Capture) -> None:
        """Find the step that failed, and record where."""
        if self._done:
            return
        failed = first_failure(capture, self._step_observer(fit), trained=fit.batches, after=self._last_reported)
        if failed is None:
            return
        step = failed.step
        self._last_reported, self._how, self._origins = failed.number, failed.observation.how, self._origins + 1
        self._harmless += step.is_finite
        # After a step with non-finite weights, all steps fail.
        self._done = not step.weights_after or self._origins >= _MAX_ORIGINS
        finite = step.loss is None or math.isfinite(step.loss)
        self._rows += origin_rows(failed.origin, failed.number, loss_is_finite=finite)

    def _step_observer(self, fit: FitState) -> StepObserver:
        if self._observer is None:
            self._observer = StepObserver(fit.adapter, fit.model)
        return self._observer

    def end(self) -> None:
        """Release the model."""
        self._fit = self._capture = self._observer = self._scaling = None

    def values(self) -> Mapping[str, Value]:
        """Return the number of origins; None where the steps cannot be replayed."""
        unknown = self._why_unknown.startswith("unknown") and self._capture is None
        return {"origins_found": None if unknown else self._origins}

    def rows(self, since: int = 0) -> Iterator[Measurement]:
        """Yield origins, and the statistics of layers, by the number of the training step."""
        return iter(self._rows[since:])

    def sources(self) -> Mapping[str, str]:
        """Return how the step was replayed, or why it was not."""
        how = f"the step was replayed outside of the training, {self._how}" if self._how else self._why_unknown
        if self._capture is not None and not self._how:
            how = "no step failed, so that none was replayed"
        return {"origins_found": how, "first_non_finite": how}
