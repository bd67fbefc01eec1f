"""Trial: a compiled copy of a model, trained on recorded batches beside the fit."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision._adapters.tracing.step_observer import Batch, StepObserver
from keras_precision._adapters.training.step_replay import ReplayedStep
from keras_precision.callbacks.first_failure import FailedStep
from keras_precision.core.observation import NonFiniteOrigin, find_origin

__all__ = ["Trial", "TrialRun"]

_GROWTH = 10.0  # times its first loss: a trial that ends above it goes the way of the fit, only slower


@dataclass(frozen=True)
class TrialRun:
    """What training a copy has shown.

    Attributes:
        failed: The first step whose loss or weights are not finite; None if there was none.
        losses: The losses of the batches before it.
        updated: Whether any step changed the weights.
        complete: Whether all batches were trained, or one failed, before the time was over.
    """

    failed: ReplayedStep | None
    losses: tuple[float, ...]
    updated: bool
    complete: bool

    @property
    def is_healthy(self) -> bool:
        """Whether all batches were trained, and the loss did not grow as in a training that diverges."""
        grew = bool(self.losses) and abs(self.losses[-1]) > _GROWTH * max(abs(self.losses[0]), 1e-3)
        return self.complete and self.failed is None and self.updated and not grew


class Trial:
    """A compiled copy of a model that can be trained on batches again and again, each time from the same state.

    Attributes:
        model: The copy.
    """

    def __init__(self, adapter: KerasAdapter, model: Any, values: Sequence[Any] | None = None) -> None:
        self.model = model
        self._adapter, self._observer = adapter, StepObserver(adapter, model)
        self._state = self._observer.state
        if hasattr(model.optimizer, "build"):
            model.optimizer.build(model.trainable_variables)
        self._count = len(model.trainable_variables) + len(model.non_trainable_variables)
        for variable, value in zip(self._state.variables[: self._count], values or (), strict=False):
            variable.assign(value)
        self._start = [(variable, self._state.array(variable)) for variable in self._state.step_variables()]
        self._rate = _learning_rate(adapter.unscaled(model.optimizer))

    @property
    def has_rate(self) -> bool:
        """Whether there is a learning rate to change; a schedule, or one that is not finite, is none."""
        return self._rate is not None

    def observe(self, batch: Batch, scale: float | None = None) -> NonFiniteOrigin | None:
        """Return where a step on a batch breaks, from the first state."""
        self._restart(1.0)
        return find_origin(self._observer.observe(batch, scale=scale or 1.0))

    def run(self, batches: Sequence[Batch], deadline: float, *, rate: float = 1.0) -> TrialRun:
        """Train on batches from the first state, with ``rate`` times the learning rate, until a step fails."""
        self._restart(rate)
        losses: list[float] = []
        updated = False
        for batch in batches:
            if time.monotonic() > deadline:
                return TrialRun(None, tuple(losses), updated, complete=False)
            values, scale = self._state.values(), self._adapter.loss_scaling(self.model).scale()
            before = self._weights()
            self.model.reset_metrics()
            logs = self.model.train_on_batch(batch.x, batch.y, sample_weight=batch.sample_weight, return_dict=True)
            after = self._weights()
            loss = float(logs["loss"]) if "loss" in logs else None
            is_updated = any(not np.array_equal(*pair) for pair in zip(before, after, strict=True))
            updated |= is_updated
            finite = all(np.isfinite(np.asarray(weight, np.float32)).all() for weight in after)
            step = ReplayedStep(batch, values, loss, bool(finite), is_updated, scale)
            if not step.is_finite:
                return TrialRun(step, tuple(losses), updated, complete=True)
            losses += [] if loss is None else [loss]
        return TrialRun(None, tuple(losses), updated, complete=True)

    def failure(self, run: TrialRun) -> FailedStep | None:
        """Return where the failed step of a run broke; None if no step failed."""
        if run.failed is None:
            return None
        step = run.failed  # before which metrics may have had no variables yet
        values = [*step.values[: self._count], *self._state.values()[self._count :]]
        observation = self._observer.observe(step.batch, values, step.scale or 1.0)
        return FailedStep.of(len(run.losses) + 1, step, observation)

    def _restart(self, rate: float) -> None:
        for variable, value in self._start:
            variable.assign(value)
        if rate != 1 and self._rate is not None:
            self.model.optimizer.learning_rate = self._rate * rate

    def _weights(self) -> list[Any]:
        return [np.array(self._state.array(variable)) for variable in self.model.trainable_variables]


def _learning_rate(optimizer: Any) -> float | None:
    """The learning rate; None where a schedule sets it, or where it is not finite."""
    if callable(getattr(optimizer, "_learning_rate", None)):  # a schedule; the public property is its current value
        return None
    rate = float(np.asarray(optimizer.learning_rate))
    return rate if math.isfinite(rate) else None
