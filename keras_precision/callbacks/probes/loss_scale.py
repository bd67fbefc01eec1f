"""LossScaleProbe: the loss scale, and the steps that the optimizer skipped because of it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import monotonic

from keras_precision._adapters.training.batch_loss import BatchLoss
from keras_precision._adapters.training.loss_scaling import LossScaling
from keras_precision.callbacks.probes.probe import FitState, Probe
from keras_precision.core.errors import InputError
from keras_precision.core.result import Measurement, Value

__all__ = ["LossScaleProbe"]

_MIN_INTERVAL, _MAX_INTERVAL = 64, 256  # batches between two reads of the skip count
_MAX_SECONDS = 0.5  # between two reads, after _MIN_INTERVAL batches


class LossScaleProbe(Probe):
    """Counts the steps whose update was not applied, locates them, and reads the loss scale.

    The count is exact. It is read at intervals, because reading synchronizes with the device. Where some of the
    batches of an interval were skipped, the result has their number only; with ``every=1``, it lists every skipped
    step. Under ``steps_per_execution``, the count can be read at most once per execution.

    Args:
        every: Batches between two reads of the count. None for 64, doubled up to 256 after every interval without
            a skipped step; after 64 batches, the interval ends within half a second.

    Raises:
        InputError: ``every`` is neither None nor a whole number above 0.

    Example:
        >>> LossScaleProbe(every=1).values()["skipped_steps"] is None
        True
    """

    name = "loss scale"

    def __init__(self, every: int | None = None) -> None:
        if every is not None and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
            raise InputError(
                f"Expected every to be a whole number >= 1. Received: {every!r}. Pass 1 to record which steps were skipped."
            )
        self.every = every
        self._fit: FitState | None = None
        self._scaling: LossScaling | None = None
        self._batch_loss = BatchLoss()
        self._reset()

    def _reset(self) -> None:
        self._rows: list[Measurement] = []
        self._scale: float | None = None
        self._has_read = False
        self._skipped: int | None = 0
        self._by_loss: _SkippedByLoss | None = _SkippedByLoss()
        self._window = _SkipWindow(first=1)
        self._interval = self.every or _MIN_INTERVAL
        self._last_read = monotonic()
        self._mean_is_finite = True  # of the losses of this epoch, so far
        self._mean_is_keras = True

    def begin(self, fit: FitState) -> None:
        """Find the loss scaling of the optimizer, and start counting."""
        self._fit = fit
        self._reset()
        self._mean_is_keras = not fit.own_loop and not fit.adapter.has_own_train_step(fit.model)
        self._scaling = fit.adapter.loss_scaling(fit.model, fit.optimizer)
        self._scaling.begin()
        self._batch_loss = BatchLoss()
        if not fit.own_loop:
            self._batch_loss = fit.resources.enter_context(fit.adapter.batch_loss(fit.model))

    def step_end(self, batches: int) -> None:
        """Classify the losses of the step, and read the count at the end of an interval."""
        window, fit = self._window, self._fit
        if fit is None:
            return
        window.steps += batches
        loss = fit.loss
        if loss is None or not self._mean_is_finite or not math.isfinite(loss):
            self._classify_losses(loss, batches)
        elif batches > 1 and not self._mean_is_keras:
            window.unknown += batches - 1  # A custom train_step may report the loss of the last batch alone.
        overdue = self.every is None and window.steps >= _MIN_INTERVAL and self._is_overdue()
        if window.steps >= self._interval or overdue:
            self._read_count(fit)

    def _is_overdue(self) -> bool:
        """Whether the last read is so long ago that a killed run would lose too much."""
        return monotonic() - self._last_read >= _MAX_SECONDS

    def _classify_losses(self, mean: float | None, batches: int) -> None:
        """Count NaN, infinite and unknown losses of batches for which Keras's mean is not finite.

        Keras reports the mean of the loss over the epoch so far. It turns to NaN or infinity with the first batch whose
        loss is not finite, and says nothing about the batches after it.
        """
        window, became_non_finite = self._window, mean is not None and self._mean_is_finite
        window.unknown += batches - 1
        loss = self._batch_loss.take() if batches == 1 else None
        if loss is None and mean is not None and (became_non_finite or math.isfinite(mean)):
            # Either the mean became non-finite with this batch, or the value is finite again, and so not a running mean.
            loss = mean
        if loss is None:
            window.unknown += 1
        elif math.isnan(loss):
            window.nan += 1
        elif math.isinf(loss):
            window.infinite += 1
        if became_non_finite:
            self._mean_is_finite = False
            if self._fit is not None:
                self._read_count(self._fit)  # All batches before this one had a finite loss.

    def _read_count(self, fit: FitState) -> None:
        """Read the count of skipped steps, which synchronizes with the device, and start a new window."""
        window, before = self._window, self._skipped
        self._window = _SkipWindow(first=fit.batches + 1)
        self._last_read = monotonic()
        if self._scaling is None:
            return
        self._skipped = self._scaling.skipped(fit.batches if fit.batches_exact else None)
        self._has_read = True
        if self._skipped is None or before is None:
            self._by_loss = None
            return
        in_window = self._skipped - before
        if self.every is None:
            self._interval = _MIN_INTERVAL if in_window else min(2 * self._interval, _MAX_INTERVAL)
        if not 0 <= in_window <= window.steps:  # a training loop that makes several updates in a step
            self._by_loss = None
        elif in_window:
            self._by_loss = None if self._by_loss is None else self._by_loss + window.by_loss(in_window)
            self._rows += window.rows(in_window)

    def epoch_end(self, epoch: int) -> None:
        """Read scale and count; this synchronizes with the device."""
        if self._scaling is not None and self._fit is not None:
            self._read_count(self._fit)
            self._batch_loss.rest()
            self._scale = self._scaling.scale()
            batches, self._mean_is_finite = self._fit.batches, True
            self._rows.append(Measurement("fit", "loss_scale", self._scale, batches))
            self._rows.append(Measurement("fit", "skipped_steps", self._skipped, batches))

    def end(self) -> None:
        """Release the optimizer."""
        self._fit = self._scaling = None
        self._batch_loss = BatchLoss()

    def values(self) -> Mapping[str, Value]:
        """Return the current scale, and the number of skipped steps so far."""
        by_loss = self._by_loss if self._has_read else None
        exact = by_loss if by_loss is not None and not by_loss.unknown else None
        return {
            "loss_scale": self._scale,
            "skipped_steps": self._skipped if self._has_read else None,
            "skipped_loss_finite": None if exact is None else exact.finite,
            "skipped_loss_not_finite": None if exact is None else exact.not_finite,
            "skipped_loss_unknown": None if by_loss is None else by_loss.unknown,
        }

    def rows(self, since: int = 0) -> Iterator[Measurement]:
        """Yield skipped steps, and scale and count at the end of every epoch, by the number of the training step."""
        return iter(self._rows[since:])

    def sources(self) -> Mapping[str, str]:
        """Return how skipped steps were counted."""
        if self._scaling is None:
            return {}
        by_loss = f"by the mean loss of the epoch, until a batch turns it to NaN; after that, {self._batch_loss.source}"
        interval = self.every or f"{_MIN_INTERVAL} to {_MAX_INTERVAL}"
        in_window = f"the count was read every {interval} batches, and where the loss became non-finite"
        return {
            "skipped_steps": self._scaling.source,
            "skipped_in_window": in_window,
            **dict.fromkeys(("skipped_loss_finite", "skipped_loss_not_finite", "skipped_loss_unknown"), by_loss),
        }


@dataclass(frozen=True)
class _SkippedByLoss:
    """Number of skipped steps by the loss of their batch: finite, NaN or infinite, or unknown."""

    finite: int = 0
    not_finite: int = 0
    unknown: int = 0

    def __add__(self, other: "_SkippedByLoss") -> "_SkippedByLoss":
        return _SkippedByLoss(
            self.finite + other.finite, self.not_finite + other.not_finite, self.unknown + other.unknown
        )


@dataclass
class _SkipWindow:
    """Steps between two reads of the skip count, and how many of their batches had a NaN, infinite or unknown loss.

    Example:
        >>> _SkipWindow(first=1, steps=64, nan=1).by_loss(skipped=3)
        _SkippedByLoss(finite=2, not_finite=1, unknown=0)
    """

    first: int  # number of the first step, from 1
    steps: int = 0
    nan: int = 0
    infinite: int = 0
    unknown: int = 0

    def by_loss(self, skipped: int) -> _SkippedByLoss:
        """Classify the skipped steps, as unknown where the counts do not determine their losses.

        A NaN loss has NaN gradients, so that its step is skipped. The step of an infinite loss may be applied: the loss
        may have overflowed from finite numbers with finite gradients.
        """
        rest = skipped - self.nan
        if rest < 0:
            return _SkippedByLoss(unknown=skipped)
        if rest and skipped == self.steps and not self.unknown:
            return _SkippedByLoss(rest - self.infinite, self.nan + self.infinite)
        if rest and (self.unknown or self.infinite):
            return _SkippedByLoss(not_finite=self.nan, unknown=rest)
        return _SkippedByLoss(rest, self.nan)

    def rows(self, skipped: int) -> Iterator[Measurement]:
        """Yield one row per step if all steps of the window were skipped, else one row for the window."""
        last = self.first + self.steps - 1
        if skipped == self.steps:
            for step in range(self.first, last + 1):
                yield Measurement("step", "skipped_in_window", 1, step)
        elif skipped:
            yield Measurement(f"steps {self.first} to {last}", "skipped_in_window", skipped, last)
