"""HealthProbe: whether the loss and the weights stay finite, and where they ceased to."""

import math
from collections.abc import Iterator, Mapping

from keras_precision._adapters.tensors import tensors_of
from keras_precision._adapters.training.loss_scaling import LossScaling
from keras_precision._adapters.training.open_state import training_state_of
from keras_precision._adapters.training.training_state import TrainingState
from keras_precision.callbacks.examination import Examination
from keras_precision.callbacks.probes.probe import FitState, Probe
from keras_precision.callbacks.standstill import Standstill
from keras_precision.core.result import Measurement, Value

__all__ = ["HealthProbe"]

_ADJUSTING = 16  # steps in which dynamic loss scaling gets from its first scale of 2**15 down to 1


class HealthProbe(Probe):
    """Notices a loss or weights that are not finite, and epochs without any update; then it examines the next steps, once.

    Where the loss does not fall, it looks whether the outputs are the same for all samples of a batch. Until then it reads one number a step, and the weights once an epoch. The examination records and replays up to
    eight steps, in at most ``limit_s`` seconds, as ``NumericsProbe`` does; the training continues unchanged.

    Args:
        limit_s: The time of the examination in seconds; 0 for none.
    """

    name = "health"

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._reset()

    def _reset(self) -> None:
        self._fit: FitState | None = None
        self._state: TrainingState | None = None
        self._scaling: LossScaling | None = None
        self._examination: Examination | None = None
        self._standstill: Standstill | None = None
        self._rows: list[Measurement] = []
        self._loss_was_finite = self._weights_were_finite = True
        self._last_update = (0, 0)  # batches trained and steps skipped at the end of the last epoch with an update

    def begin(self, fit: FitState) -> None:
        """Find the weights and the loss scaling of the model."""
        self._reset()
        if fit.own_loop:
            return
        self._fit, self._state = fit, training_state_of(fit.adapter, fit.model)
        self._scaling = fit.adapter.loss_scaling(fit.model)
        self._scaling.begin()
        self._standstill = Standstill(fit) if self.limit_s else None

    def step_begin(self) -> None:
        """Record the step, during an examination."""
        if self._examination is not None:
            self._examination.step_begin()
        elif self._standstill is not None:
            self._standstill.step_begin()

    def step_end(self, batches: int) -> None:
        """Look at the loss, and during an examination at the step."""
        fit = self._fit
        if fit is None:
            return
        if self._examination is not None:
            self._rows += self._examination.step_end()
        elif self._standstill is not None:
            self._standstill.step_end()
        if self._loss_was_finite and fit.loss is not None and not math.isfinite(fit.loss):
            self._loss_was_finite = False
            self._rows.append(Measurement("fit", "non_finite_loss", str(float(fit.loss)), fit.batches))
            self._check_weights(fit)
            self._examine(fit)

    def epoch_end(self, epoch: int) -> None:
        """Look at the weights and at the number of updates, and end an examination."""
        fit = self._fit
        if fit is None:
            return
        if self._examination is not None:
            self._rows += self._examination.epoch_end()
        elif self._standstill is not None:
            self._rows += self._standstill.epoch_end()
        if self._check_weights(fit):
            self._examine(fit)
        skipped = self._scaling.skipped(fit.batches if fit.batches_exact else None) if self._scaling else None
        batches, skipped_before = self._last_update
        if skipped is None or skipped - skipped_before < fit.batches - batches:
            self._last_update = (fit.batches, skipped or 0)
        elif fit.batches - batches >= _ADJUSTING:
            self._rows.append(Measurement("epoch", "no_updates", fit.batches - batches, epoch))
            self._examine(fit)

    def _check_weights(self, fit: FitState) -> bool:
        """Look whether the weights have just been lost."""
        if self._state is None or not self._weights_were_finite:
            return False
        self._weights_were_finite = tensors_of(fit.adapter).all_finite(self._state.trainable_values())
        if not self._weights_were_finite:
            self._rows.append(Measurement("fit", "non_finite_weights", 1, fit.batches))
        return not self._weights_were_finite

    def _examine(self, fit: FitState) -> None:
        """Begin to record steps, unless that was done before."""
        if self.limit_s and self._examination is None:
            self._examination = Examination(fit, self.limit_s, lost=not self._weights_were_finite)

    def end(self) -> None:
        """Release the model; what records its steps is removed with the other resources of the fit."""
        self._fit = self._state = self._scaling = self._examination = self._standstill = None

    def values(self) -> Mapping[str, Value]:
        """Return whether the weights, and all losses so far, are finite; None in a loop of one's own."""
        is_known = self._state is not None
        return {"finite": int(self._loss_was_finite and self._weights_were_finite) if is_known else None}

    def rows(self, since: int = 0) -> Iterator[Measurement]:
        """Yield what was noticed, by the number of the training step or epoch."""
        return iter(self._rows[since:])

    def sources(self) -> Mapping[str, str]:
        """Return how the step was replayed that shows the origin."""
        return {} if self._examination is None else {"first_non_finite": self._examination.how}
