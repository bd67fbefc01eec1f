"""LossScaleProbe: the loss scale, and how many steps it made the optimizer skip."""

from collections.abc import Iterator, Mapping

from keras_precision._adapters.loss_scaling import LossScaling
from keras_precision.callbacks.probe import Fit, Probe
from keras_precision.result import Measurement, Value

__all__ = ["LossScaleProbe"]


class LossScaleProbe(Probe):
    """Reads the loss scale once an epoch, and counts the steps whose update was not applied.

    Example:
        >>> LossScaleProbe().values()
        {'loss_scale': None, 'skipped_steps': None}
    """

    name = "loss scale"

    def __init__(self) -> None:
        self._fit: Fit | None = None
        self._scaling: LossScaling | None = None
        self._history: list[tuple[int, float | None, int | None]] = []  # batches, scale, skipped steps

    def begin(self, fit: Fit) -> None:
        """Look up the optimizer, and start to count."""
        self._fit, self._history = fit, []
        self._scaling = fit.adapter.loss_scaling(fit.model, fit.optimizer)
        self._scaling.begin()

    def epoch_end(self, epoch: int) -> None:
        """Read scale and count; it waits for the device."""
        if self._scaling is not None and self._fit is not None:
            batches = self._fit.batches
            skipped = self._scaling.skipped(batches if self._fit.batches_exact else None)
            self._history.append((batches, self._scaling.scale(), skipped))

    def end(self) -> None:
        """Let go of the optimizer."""
        self._fit = self._scaling = None

    def values(self) -> Mapping[str, Value]:
        """Return the scale as it stands, and the steps skipped so far."""
        _, scale, skipped = self._history[-1] if self._history else (0, None, None)
        return {"loss_scale": scale, "skipped_steps": skipped}

    def rows(self, since: int = 0) -> Iterator[Measurement]:
        """Yield scale and count after each epoch, by the number of the training step."""
        for batches, scale, skipped in self._history[since // 2 :]:
            yield Measurement("fit", "loss_scale", scale, batches)
            yield Measurement("fit", "skipped_steps", skipped, batches)

    def sources(self) -> Mapping[str, str]:
        """Return how skipped steps were counted."""
        return {"skipped_steps": self._scaling.source} if self._scaling else {}
