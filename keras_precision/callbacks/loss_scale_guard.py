"""LossScaleGuard: keeps the loss scale of a compiled model within bounds, and stops a training that cannot recover."""

from keras_precision._adapters import adapter_of
from keras_precision._adapters.training.callback import Callback, Logs
from keras_precision._adapters.training.loss_scaling import LossScaling, NoLossScaling
from keras_precision.core.errors import InputError, LossScaleCollapse

__all__ = ["LossScaleGuard"]


class LossScaleGuard(Callback):
    """Keeps the loss scale of a model that is already compiled within bounds.

    Before the first step is traced, Keras's LossScaleOptimizer is replaced by
    ``kp.LossScaleOptimizer`` around the same inner optimizer, with the same state; it stays there
    after the fit. tf_keras has its own lower bound, which is 1. A model without loss scaling is not changed.

    When all of the last ``patience`` steps were skipped with the scale at its lower bound, no scale helps:
    the guard raises an error, before more time is lost.

    Args:
        min_scale: Lower bound of the loss scale.
        max_scale: Upper bound of the loss scale.
        patience: Number of consecutive skipped steps at the lower bound after which the training is stopped.
        check_every: Number of batches between two checks; a check synchronizes with the device.

    Raises:
        InputError: A bound or a count is out of range.
        LossScaleCollapse: In ``fit``, after ``patience`` skipped steps at the lower bound.

    Example:
        >>> history = model.compile("adam", "sparse_categorical_crossentropy")
        >>> history = model.fit(x_test, y_test, verbose=0, callbacks=[LossScaleGuard()])
    """

    def __init__(
        self, min_scale: float = 1.0, max_scale: float = 2.0**24, *, patience: int = 200, check_every: int = 50
    ) -> None:
        super().__init__()
        if not 0 < min_scale <= max_scale <= 2.0**127:
            raise InputError(
                f"Expected 0 < min_scale <= max_scale <= 2**127. Received: min_scale={min_scale}, max_scale={max_scale}."
            )
        if patience < 1 or check_every < 1:
            raise InputError(f"Expected patience >= 1 and check_every >= 1. Received: {patience} and {check_every}.")
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.patience = patience
        self.check_every = check_every
        self._scaling: LossScaling = NoLossScaling()
        self._start()

    def _start(self) -> None:
        self._batches = self._checked = self._skipped = self._in_a_row = 0
        self._first_in_step = 0
        self._was_at_floor = False

    def on_train_begin(self, logs: Logs = None) -> None:
        """Set the bounds, and start counting skipped steps."""
        self._start()
        adapter = adapter_of(self.model)
        adapter.bound_loss_scale(self.model, self.min_scale, self.max_scale)
        self._scaling = adapter.loss_scaling(self.model)
        self._scaling.begin()

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Record the first batch of the step: under ``steps_per_execution``, a step runs several."""
        self._first_in_step = batch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Check the loss scale every ``check_every`` batches."""
        self._batches += max(1, batch - self._first_in_step + 1)
        if self._batches - self._checked >= self.check_every:
            self._check()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Check the loss scale at the end of the epoch, too."""
        self._check()

    def _check(self) -> None:
        scale, skipped = self._scaling.scale(), self._scaling.skipped(self._batches)
        if scale is None or skipped is None:
            return
        steps, newly_skipped = self._batches - self._checked, skipped - self._skipped
        self._checked, self._skipped = self._batches, skipped
        at_floor = scale <= self.min_scale
        # At the lower bound in both checks, and every step in between skipped.
        self._in_a_row = (
            self._in_a_row + newly_skipped if at_floor and self._was_at_floor and newly_skipped == steps else 0
        )
        self._was_at_floor = at_floor
        if self._in_a_row >= self.patience:
            raise LossScaleCollapse(
                f"Expected a step without overflow at the smallest loss scale. Received: {self._in_a_row} skipped steps in a "
                f"row at a scale of {scale:g}, up to batch {self._batches} of this fit; {skipped} steps were skipped in all. "
                "No scale helps: the forward pass overflows, or the data contain NaN. Check the inputs, lower the learning "
                "rate, or keep the layer that overflows in float32."
            )
