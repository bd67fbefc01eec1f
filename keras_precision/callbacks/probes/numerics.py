"""NumericsProbe: which layer made the first value that is not finite, and what goes through each layer."""

import math
from collections.abc import Iterator, Mapping

from keras_precision._adapters.tracing.step_observer import Observer
from keras_precision._adapters.training.loss_scaling import LossScaling
from keras_precision._adapters.training.open_state import inside_of
from keras_precision._adapters.training.step_replay import Capture, capture_of
from keras_precision.callbacks.first_failure import find_break
from keras_precision.callbacks.probes.probe import Fit, Probe
from keras_precision.core.errors import InputError
from keras_precision.core.observation import origin_rows, rows_of
from keras_precision.core.result import Measurement, Value

__all__ = ["NumericsProbe"]

_MOST = 4  # origins that are looked for in one fit
_HARMLESS = 2  # of them, those behind a finite loss, of which loss scaling makes many while it searches its place


class NumericsProbe(Probe):
    """Finds where the first value arose that is not finite, and watches what goes through each layer.

    It keeps the last batches, and a copy of the weights, of the optimizer's state and of the random state before
    them. When a loss or a weight is no longer finite, or loss scaling skipped a step, these steps are run again beside
    the training, until that step is found; then it is run once more with a tap on every layer, the way that the model trains
    in, compiled where that is compiled. Afterwards all is put back: the training goes on as if nobody had looked.

    The copies take as much memory as the weights and the optimizer's state, and as ``window`` batches.

    Args:
        layer_stats_every: Steps between two looks at what goes through each layer, forward and backward, on the batch
            that was just trained; None for no such looks.
        window: Batches that are kept; the state is copied as often.

    Raises:
        InputError: An argument is no whole number above 0.

    Example:
        >>> NumericsProbe(layer_stats_every=100).values()["origins_found"]
        0
    """

    name = "numerics"

    def __init__(self, layer_stats_every: int | None = None, window: int = 32) -> None:
        for name, value in (("layer_stats_every", layer_stats_every), ("window", window)):
            wanted = value is not None or name == "window"
            if wanted and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InputError(f"Expected {name} to be a whole number >= 1. Received: {value!r}.")
        self.layer_stats_every = layer_stats_every
        self.window = window
        self._forget("not used yet")

    def _forget(self, why: str) -> None:
        self._fit: Fit | None = None
        self._capture: Capture | None = None
        self._observer: Observer | None = None
        self._scaling: LossScaling | None = None
        self._skipped: int | None = 0
        self._why, self._how, self._steps, self._origins = why, "", 0, 0
        self._failure: Exception | None = None
        self._told = 0  # the last step of which an origin was told
        self._quiet = 0  # origins behind a finite loss
        self._done = self._loss_was_finite = False
        self._rows: list[Measurement] = []

    def begin(self, fit: Fit) -> None:
        """Put the capture around the train function."""
        self._forget(
            "unknown: in a loop of the user's own, batches pass nobody by; kp.diagnose(model, data) looks at one"
        )
        if fit.own_loop:
            return
        inside = inside_of(fit.adapter, fit.model)
        capture = capture_of(inside, self.window)
        if isinstance(capture, str):
            self._why = f"unknown: {capture}"
            return
        self._fit, self._capture, self._loss_was_finite = fit, capture, True
        capture.on_full = self._in_step
        fit.resources.callback(capture.remove)
        self._scaling = fit.adapter.loss_scaling(fit.model)
        self._scaling.begin()

    def step_begin(self) -> None:
        """Keep the capture in its place."""
        if self._capture is not None:
            self._capture.step_begin()

    def step_end(self, batches: int) -> None:
        """Look whether something happened, and at the layers where it is time."""
        fit, capture = self._fit, self._capture
        if fit is None or capture is None:
            return
        if self._failure is not None:  # here, where it switches the probe off: the step that it arose in was training
            raise self._failure
        self._steps += 1
        if self._loss_was_finite and fit.loss is not None and not math.isfinite(fit.loss):
            self._loss_was_finite = False  # the mean of the epoch stays as it is
            self._search(fit, capture)
        if self.layer_stats_every and self._steps % self.layer_stats_every == 0:
            batch = capture.batch
            if batch is not None:
                scale = self._scaling.scale() if self._scaling else None
                observation = self._looking(fit).observe(batch, scale=scale or 1.0)
                self._how = observation.how
                self._rows += rows_of(observation, fit.batches)

    def epoch_end(self, epoch: int) -> None:
        """Look at the steps since the last look; a new epoch has a new mean of losses."""
        self._at_window()
        self._loss_was_finite = True

    def _in_step(self) -> None:
        """Look at the window from within a training step, which no failure of this probe may end."""
        try:
            self._at_window()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised again outside the step
            self._failure = error
            if self._capture is not None:
                self._capture.on_full = None

    def _at_window(self) -> None:
        """Before kept steps are let go: search them if one was skipped, or weights broke behind a finite loss."""
        fit, capture = self._fit, self._capture
        if fit is None or capture is None or self._done:
            return
        before, scaling = self._skipped, self._scaling
        skipped = scaling.skipped(fit.batches if fit.batches_exact else None) if scaling else None
        self._skipped = skipped
        new = skipped is not None and before is not None and skipped > before
        if (new and self._quiet < _HARMLESS) or not capture.weights_are_finite():
            self._search(fit, capture)

    def _search(self, fit: Fit, capture: Capture) -> None:
        """Find the step that broke, and note where."""
        if self._done:
            return
        broken = find_break(capture, self._looking(fit), trained=fit.batches, after=self._told)
        if broken is None:
            return
        step = broken.step
        self._told, self._how, self._origins = broken.number, broken.observation.how, self._origins + 1
        self._quiet += step.is_finite
        # What follows a step that broke the weights is broken, too.
        self._done = not step.weights_after or self._origins >= _MOST
        finite = step.loss is None or math.isfinite(step.loss)
        self._rows += origin_rows(broken.origin, broken.number, loss_is_finite=finite)

    def _looking(self, fit: Fit) -> Observer:
        if self._observer is None:
            self._observer = Observer(fit.adapter, fit.model)
        return self._observer

    def end(self) -> None:
        """Let go of the model."""
        self._fit = self._capture = self._observer = self._scaling = None

    def values(self) -> Mapping[str, Value]:
        """Return how many origins were found; None where nobody can look."""
        return {"origins_found": None if self._why.startswith("unknown") and self._capture is None else self._origins}

    def rows(self, since: int = 0) -> Iterator[Measurement]:
        """Yield origins, and the figures of layers, by the number of the training step."""
        return iter(self._rows[since:])

    def sources(self) -> Mapping[str, str]:
        """Return how it was looked: on the path that training uses, or why not."""
        how = f"the step was run again beside the training, {self._how}" if self._how else self._why
        if self._capture is not None and not self._how:
            how = "nothing happened that had to be looked for"
        return {"origins_found": how, "first_non_finite": how}
