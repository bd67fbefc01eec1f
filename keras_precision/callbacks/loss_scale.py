"""LossScaleProbe: the loss scale, and how many steps it made the optimizer skip."""

import math
from collections.abc import Iterator, Mapping

from keras_precision._adapters.loss_scaling import LossScaling
from keras_precision.callbacks.probe import Fit, Probe
from keras_precision.result import Measurement, Value

__all__ = ["LossScaleProbe"]


class LossScaleProbe(Probe):
    """Reads the loss scale once an epoch, and counts the steps whose update was not applied.

    Example:
        >>> LossScaleProbe().values()
        {'loss_scale': None, 'skipped_steps': None, 'skipped_loss_finite': None, 'skipped_loss_not_finite': None}
    """

    name = "loss scale"

    def __init__(self) -> None:
        self._fit: Fit | None = None
        self._scaling: LossScaling | None = None
        self._history: list[tuple[int, float | None, int | None]] = []  # batches, scale, skipped steps
        self._kinds: list[tuple[int, int] | None] = []  # of each epoch: skipped with a finite loss, and without

    def begin(self, fit: Fit) -> None:
        """Look up the optimizer, and start to count."""
        self._fit, self._history, self._kinds = fit, [], []
        self._scaling = fit.adapter.loss_scaling(fit.model, fit.optimizer)
        self._scaling.begin()

    def epoch_end(self, epoch: int) -> None:
        """Read scale and count; it waits for the device."""
        if self._scaling is not None and self._fit is not None:
            batches = self._fit.batches
            skipped = self._scaling.skipped(batches if self._fit.batches_exact else None)
            self._kinds.append(self._kinds_of_epoch(skipped))
            self._history.append((batches, self._scaling.scale(), skipped))

    def end(self) -> None:
        """Let go of the optimizer."""
        self._fit = self._scaling = None

    def values(self) -> Mapping[str, Value]:
        """Return the scale as it stands, and the steps skipped so far."""
        _, scale, skipped = self._history[-1] if self._history else (0, None, None)
        finite, not_finite = self._sums_of_kinds()
        return {
            "loss_scale": scale,
            "skipped_steps": skipped,
            "skipped_loss_finite": finite,
            "skipped_loss_not_finite": not_finite,
        }

    def _kinds_of_epoch(self, skipped: int | None) -> tuple[int, int] | None:
        """How many steps of this epoch were skipped with a finite loss, and how many without; None if unknown.

        Keras tells the mean of the loss over the epoch, which one batch without a finite loss turns
        into NaN: a finite mean clears all of them, and of a single skipped step, the mean tells its kind.
        """
        loss = None if self._fit is None else self._fit.loss
        before = self._history[-1][2] if self._history else 0
        if skipped is None or before is None or loss is None:
            return None
        here = skipped - before
        if math.isfinite(loss):
            return here, 0
        return (0, here) if here <= 1 else None

    def _sums_of_kinds(self) -> tuple[int | None, int | None]:
        known = [kinds for kinds in self._kinds if kinds is not None]
        if not known or len(known) < len(self._kinds):
            return None, None
        return sum(finite for finite, _ in known), sum(other for _, other in known)

    def rows(self, since: int = 0) -> Iterator[Measurement]:
        """Yield scale and count after each epoch, by the number of the training step."""
        for batches, scale, skipped in self._history[since // 2 :]:
            yield Measurement("fit", "loss_scale", scale, batches)
            yield Measurement("fit", "skipped_steps", skipped, batches)

    def sources(self) -> Mapping[str, str]:
        """Return how skipped steps were counted."""
        if self._scaling is None:
            return {}
        kind = "known where the epoch's mean loss is finite, or a single step of the epoch was skipped"
        return {"skipped_steps": self._scaling.source, "skipped_loss_finite": kind, "skipped_loss_not_finite": kind}
