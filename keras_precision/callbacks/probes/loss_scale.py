"""LossScaleProbe: the loss scale, and which steps it made the optimizer skip."""

import math
from collections.abc import Iterator, Mapping
from time import monotonic

from keras_precision._adapters.training.batch_loss import BatchLoss
from keras_precision._adapters.training.loss_scaling import LossScaling
from keras_precision.callbacks.probes.probe import Fit, Probe
from keras_precision.callbacks.probes.skip_window import Kinds, SkipWindow
from keras_precision.core.errors import InputError
from keras_precision.core.result import Measurement, Value

__all__ = ["LossScaleProbe"]

_SHORTEST, _LONGEST = 64, 256  # batches between two looks
_LONGEST_S = 0.5  # seconds between two looks, once there were 64 batches


class LossScaleProbe(Probe):
    """Counts the steps whose update was not applied, tells which they were, and reads the loss scale.

    The count is exact. It is read every so many batches, and each reading waits for the device: where
    a part of these batches was skipped, it is known of them together, and with ``every=1`` of each.
    Under ``steps_per_execution``, nobody can look more often than once in a group.

    Args:
        every: Batches between two looks at the count. None for 64, and twice as many, up to 256, after each
            look that found no step skipped; after 64, it does not wait longer than half a second.

    Raises:
        InputError: ``every`` is neither None nor a whole number above 0.

    Example:
        >>> LossScaleProbe(every=1).values()["skipped_steps"] is None
        True
    """

    name = "loss scale"

    def __init__(self, every: int | None = None) -> None:
        if every is not None and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
            raise InputError(f"Expected every to be a whole number >= 1. Received: {every!r}. 1 tells the very steps.")
        self.every = every
        self._fit: Fit | None = None
        self._scaling: LossScaling | None = None
        self._batch_loss = BatchLoss()
        self._forget()

    def _forget(self) -> None:
        self._rows: list[Measurement] = []
        self._scale: float | None = None
        self._read = False
        self._skipped: int | None = 0
        self._kinds: Kinds | None = Kinds()
        self._window = SkipWindow(first=1)
        self._pace = self.every or _SHORTEST  # batches until the next look
        self._looked = monotonic()
        self._mean_is_finite = True  # of the losses of this epoch, so far
        self._mean_is_keras = True

    def begin(self, fit: Fit) -> None:
        """Look up the optimizer, and start to count."""
        self._fit = fit
        self._forget()
        self._mean_is_keras = not fit.own_loop and not fit.adapter.has_own_train_step(fit.model)
        self._scaling = fit.adapter.loss_scaling(fit.model, fit.optimizer)
        self._scaling.begin()
        self._batch_loss = BatchLoss()
        if not fit.own_loop:
            self._batch_loss = fit.resources.enter_context(fit.adapter.batch_loss(fit.model))

    def step_end(self, batches: int) -> None:
        """Note what the losses say, and look at the count where it is time."""
        window, fit = self._window, self._fit
        if fit is None:
            return
        window.steps += batches
        loss = fit.loss
        if loss is None or not self._mean_is_finite or not math.isfinite(loss):
            self._note_losses(loss, batches)
        elif batches > 1 and not self._mean_is_keras:
            window.untold += batches - 1  # it may be the loss of the last of them alone
        if window.steps >= self._pace or (self.every is None and window.steps >= _SHORTEST and self._waited()):
            self._look(fit)

    def _waited(self) -> bool:
        """Whether the last look is long ago: a run that is killed must not lose more."""
        return monotonic() - self._looked >= _LONGEST_S

    def _note_losses(self, mean: float | None, batches: int) -> None:
        """Note the losses of batches that Keras's mean does not clear.

        Keras tells the mean of the loss over the epoch until here. It turns to NaN or infinity with
        the first batch whose loss is not finite, and tells nothing of those after it.
        """
        window, turned = self._window, mean is not None and self._mean_is_finite
        window.untold += batches - 1
        own = self._batch_loss.take() if batches == 1 else None
        if own is None and mean is not None and (turned or math.isfinite(mean)):
            own = mean  # its own loss turned the mean; or it is no mean: that never becomes finite again
        if own is None:
            window.untold += 1
        elif math.isnan(own):
            window.nan += 1
        elif math.isinf(own):
            window.infinite += 1
        if turned:
            self._mean_is_finite = False
            if self._fit is not None:
                self._look(self._fit)  # all batches before this one had a finite loss

    def _look(self, fit: Fit) -> None:
        """Read the count, and end the window; it waits for the device."""
        window, before = self._window, self._skipped
        self._window = SkipWindow(first=fit.batches + 1)
        self._looked = monotonic()
        if self._scaling is None:
            return
        self._skipped = self._scaling.skipped(fit.batches if fit.batches_exact else None)
        self._read = True
        if self._skipped is None or before is None:
            self._kinds = None
            return
        here = self._skipped - before
        if self.every is None:
            self._pace = _SHORTEST if here else min(2 * self._pace, _LONGEST)
        if not 0 <= here <= window.steps:  # a loop that makes several updates in a step
            self._kinds = None
        elif here:
            self._kinds = None if self._kinds is None else self._kinds + window.kinds(here)
            self._rows += window.rows(here)

    def epoch_end(self, epoch: int) -> None:
        """Read scale and count; it waits for the device."""
        if self._scaling is not None and self._fit is not None:
            self._look(self._fit)
            self._batch_loss.rest()
            self._scale = self._scaling.scale()
            batches, self._mean_is_finite = self._fit.batches, True
            self._rows.append(Measurement("fit", "loss_scale", self._scale, batches))
            self._rows.append(Measurement("fit", "skipped_steps", self._skipped, batches))

    def end(self) -> None:
        """Let go of the optimizer."""
        self._fit = self._scaling = None
        self._batch_loss = BatchLoss()

    def values(self) -> Mapping[str, Value]:
        """Return the scale as it stands, and the steps skipped so far."""
        kinds = self._kinds if self._read else None
        exact = kinds if kinds is not None and not kinds.unknown else None
        return {
            "loss_scale": self._scale,
            "skipped_steps": self._skipped if self._read else None,
            "skipped_loss_finite": None if exact is None else exact.finite,
            "skipped_loss_not_finite": None if exact is None else exact.not_finite,
            "skipped_loss_unknown": None if kinds is None else kinds.unknown,
        }

    def rows(self, since: int = 0) -> Iterator[Measurement]:
        """Yield where steps were skipped, and scale and count after each epoch, by the number of the training step."""
        return iter(self._rows[since:])

    def sources(self) -> Mapping[str, str]:
        """Return how skipped steps were counted."""
        if self._scaling is None:
            return {}
        kind = f"by the mean loss of the epoch, until a batch turns it to NaN; after that, {self._batch_loss.source}"
        often = self.every or f"{_SHORTEST} to {_LONGEST}"
        where = f"the count was read every {often} batches, and where the loss ceased to be finite"
        return {
            "skipped_steps": self._scaling.source,
            "skipped_in_window": where,
            **dict.fromkeys(("skipped_loss_finite", "skipped_loss_not_finite", "skipped_loss_unknown"), kind),
        }
