"""Capture: the last steps of a fit, recorded so that they can be replayed."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_precision._adapters.tensors import tensors_of
from keras_precision._adapters.tracing.step_observer import Batch
from keras_precision._adapters.training.train_function import TrainFunctionWrapper, unwrap, wrap
from keras_precision._adapters.training.training_state import TrainingState

__all__ = ["Capture", "ReplayedStep", "capture_of"]


@dataclass(frozen=True)
class ReplayedStep:
    """One step that was replayed.

    Attributes:
        batch: The data of the step.
        values: The values of ``inside.variables`` before it.
        loss: The loss of its batch; None where the model reports none.
        weights_after: Whether the weights were finite after it.
        updated: Whether any weight changed.
        scale: The loss scale before it; None where there is none.
        state: The complete training state before it, for ``Capture.restore``.
    """

    batch: Batch
    values: Sequence[Any]
    loss: float | None
    weights_after: bool
    updated: bool
    scale: float | None
    state: Any = None

    @property
    def is_finite(self) -> bool:
        """Whether the loss and the weights after the step are finite."""
        return self.weights_after and (self.loss is None or math.isfinite(self.loss))


class Capture(TrainFunctionWrapper, ABC):
    """A train function that copies the training state every ``window`` batches, and records the batches since.

    Attributes:
        batches: The batches since the state was copied.
        on_full: Called before the state is copied again, while the recorded steps can still be replayed.
    """

    def __init__(self, inside: TrainingState, window: int) -> None:
        super().__init__()
        self.inside, self.model, self._window = inside, inside.model, window
        self.batches: list[Any] = []
        self.on_full: Callable[[], None] | None = None
        self._state: Any = None
        self._replaying = False

    def step_begin(self) -> None:
        """Wrap the train function, which may have been rebuilt since the last step."""
        wrap(self.model, self, innermost=True)  # a timer of the pulls must see the trainer's own iterator

    def remove(self) -> None:
        """Unwrap the train function, and delete what was recorded."""
        unwrap(self.model, self)
        self.batches, self._state, self.on_full = [], None, None

    @property
    def is_full(self) -> bool:
        """Whether the state is copied again before the next batch."""
        return len(self.batches) >= self._window

    @property
    def batch(self) -> Batch | None:
        """The batch that was trained last."""
        return self._unpack(self.batches[-1]) if self.batches else None

    def record(self, data: Any, copy: Callable[[], Any]) -> None:
        """Record a batch, and the state before it where that is due."""
        if self._state is None or len(self.batches) >= self._window or self._is_other_state():
            if self.on_full is not None and self.batches:
                self.on_full()
            self.batches, self._state = [], copy()
        self.batches.append(data)

    def _is_other_state(self) -> bool:
        """Whether there are new variables since the copy, such as those of an optimizer that was built."""
        return False

    @abstractmethod
    def restore(self, step: ReplayedStep) -> None:
        """Restore the training state before a step, and delete what was recorded since."""

    def weights_are_finite(self) -> bool:
        """Tell whether all trainable weights are finite now; it waits for the device."""
        return tensors_of(self.inside.adapter).all_finite(self.inside.trainable_values())

    @abstractmethod
    def replay(self) -> Iterator[ReplayedStep]:
        """Replay the recorded steps one by one, from the state before them; afterwards everything is restored."""

    def _unpack(self, data: Any) -> Batch:
        """Return inputs, labels and sample weights in Keras's order."""
        if isinstance(data, list):
            data = tuple(data)
        if not isinstance(data, tuple):
            return Batch(data)
        return Batch(*(*data, None, None)[:3])


class _InPlace(Capture):
    """A trainer that updates variables in place: TensorFlow and PyTorch."""

    def __call__(self, argument: Any) -> Any:
        data = self._next_batch(argument)
        if not self._replaying:
            self.record(data, self._copy)
        return self._step(data)

    @abstractmethod
    def _next_batch(self, argument: Any) -> Any:
        """Return the batch of a step."""

    @abstractmethod
    def _step(self, data: Any) -> Any:
        """Train on a batch; return the logs."""

    def _is_other_state(self) -> bool:
        return len(self.inside.step_variables()) != len(self._state)

    def _copy(self) -> list[tuple[Any, Any]]:
        return [(variable, _copied(variable)) for variable in self.inside.step_variables()]

    def replay(self) -> Iterator[ReplayedStep]:
        if self._state is None:
            return
        now, batches = self._copy(), list(self.batches)
        self._replaying = True
        try:
            _assign(self._state)
            for data in batches:
                for metric in self.model.metrics:
                    metric.reset_state()
                yield self._rerun(data)
        finally:
            _assign(now)
            self._replaying = False

    def _rerun(self, data: Any) -> ReplayedStep:
        values, scale, state = self.inside.values(), self.inside.adapter.loss_scaling(self.model).scale(), self._copy()
        before = self._weights()
        logs = self._step(data)
        after = self._weights()
        return ReplayedStep(
            self._unpack(data),
            values,
            _loss(logs),
            _finite(after),
            _differ(before, after),
            scale,
            state,
        )

    def restore(self, step: ReplayedStep) -> None:
        _assign(step.state)
        self.batches, self._state = [], None

    def _weights(self) -> list[Any]:
        return [self.inside.array(variable) for variable in self.model.trainable_variables]


class _TensorFlowCapture(_InPlace):
    def _next_batch(self, iterator: Any) -> Any:
        return next(iter(iterator))

    def _step(self, data: Any) -> Any:
        return self.inner([data])  # Keras takes batches from any iterable


class _LegacyCapture(_InPlace):
    """tf_keras traces the pull from the iterator together with the step; here the step is traced alone.

    Single steps in the midst of a fit (a window of 1) are trained by its own function, which has the random state so far.
    """

    def __init__(self, inside: TrainingState, window: int) -> None:
        super().__init__(inside, window)
        self._element_spec: Any = None
        self._traced_for: Any = None
        self._train: Any = None
        self._retrain: Any = None

    def _next_batch(self, iterator: Any) -> Any:
        self._element_spec = getattr(iterator, "element_spec", None)
        return next(iterator)

    def _step(self, data: Any) -> Any:
        if self._window == 1 and not self._replaying and self._element_spec is not None:
            return self.inner(self._iterator_over(data))
        if self._traced_for is not self.inner:  # the train function was rebuilt, as after a change of policies
            # Random operations of TensorFlow store their state in the traced function, so a replay needs its own one.
            self._train, self._retrain, self._traced_for = self._traced(), self._traced(), self.inner
        return self._retrain(data) if self._replaying else self._train(data)

    def _iterator_over(self, data: Any) -> Any:
        """An iterator of the kind for which the train function of the fit is traced."""
        import tensorflow as tf

        return iter(tf.data.Dataset.from_generator(lambda: [data], output_signature=self._element_spec))

    def _traced(self) -> Any:
        import tensorflow as tf

        # make_train_function also counts steps in _train_counter, which fit reads, and reads _jit_compile:
        # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/engine/training.py
        def step(data: Any) -> Any:
            logs = self.model.train_step(data)
            self.model._train_counter.assign_add(1)
            return logs

        jit = True if getattr(self.model, "_jit_compile", False) else None
        return step if self.model.run_eagerly else tf.function(step, reduce_retracing=True, jit_compile=jit)


class _TorchCapture(_InPlace):
    def _next_batch(self, data: Any) -> Any:
        return data[0]

    def _step(self, data: Any) -> Any:
        return self.inner([data])


class _JaxCapture(Capture):
    """A trainer that passes its state from step to step (JAX), so that a replay needs no restoring."""

    def __init__(self, inside: TrainingState, window: int) -> None:
        super().__init__(inside, window)
        import jax

        self._jax = jax
        # Copies, because the step donates its arrays; in one compiled call.
        self._copied = jax.jit(lambda state: jax.tree.map(lambda array: array.copy(), state))

    def __call__(self, state: Any, iterator: Any) -> Any:
        data = next(iterator)
        self.record(data, lambda: self._copied(state))
        return self.inner(state, iter([data]))

    def replay(self) -> Iterator[ReplayedStep]:
        if self._state is None:
            return
        state = self._copied(self._state)
        for data in list(self.batches):
            trained, others, slots, metrics = state
            metrics = [self._jax.numpy.zeros_like(metric) for metric in metrics]
            before, copy = self._jax.device_get(trained), self._copied((trained, others, slots, metrics))
            scale = self._scale(slots)
            logs, state = self.inner((trained, others, slots, metrics), iter([data]))
            after = self._jax.device_get(state[0])
            values = [*copy[0], *copy[1], *copy[3]]
            yield ReplayedStep(
                self._unpack(data),
                values,
                _loss(logs),
                _finite(after),
                _differ(before, after),
                scale,
                copy,
            )

    def restore(self, step: ReplayedStep) -> None:
        model = self.model
        # After a sync, the trainer reads its state from the variables before the next step:
        # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/jax/trainer.py
        model.jax_state_sync()
        groups = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        for variables, values in zip(groups, step.state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self.batches, self._state = [], None

    def _scale(self, slots: Any) -> float | None:
        optimizer = self.model.optimizer
        scale = getattr(optimizer, "dynamic_scale", None)
        if scale is None:
            return getattr(optimizer, "loss_scale_factor", None)
        place = next(place for place, variable in enumerate(optimizer.variables) if variable is scale)
        return float(slots[place])


def _copied(variable: Any) -> Any:
    value = getattr(variable, "value", None)
    tensor = variable if value is None or callable(value) else value
    if hasattr(tensor, "read_value"):
        return tensor.read_value()
    return tensor.detach().clone()


def _assign(state: Sequence[tuple[Any, Any]]) -> None:
    for variable, value in state:
        variable.assign(value)


def _loss(logs: Any) -> float | None:
    loss = logs.get("loss") if hasattr(logs, "get") else None
    return None if loss is None else float(loss)


def _finite(weights: Sequence[Any]) -> bool:
    return all(bool(np.isfinite(np.asarray(weight, np.float32)).all()) for weight in weights)


def _differ(before: Sequence[Any], after: Sequence[Any]) -> bool:
    return any(not np.array_equal(one, other) for one, other in zip(before, after, strict=True))


_BY_STACK: dict[str, type[Capture]] = {
    "tensorflow": _TensorFlowCapture,
    "jax": _JaxCapture,
    "torch": _TorchCapture,
    "tf_keras": _LegacyCapture,
}


def capture_of(inside: TrainingState, window: int) -> Capture | str:
    """Return a recorder of the last ``window`` steps, not yet around the train function; or why there can be none."""
    model, adapter = inside.model, inside.adapter
    # In tf_keras the attribute is private: https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/engine/training.py
    steps = getattr(model, "steps_per_execution", None) or getattr(model, "_steps_per_execution", None)
    if steps is not None and int(steps) > 1:
        return "steps_per_execution is above 1: Python does not see single batches"
    strategy = getattr(model, "distribute_strategy", None)
    if strategy is not None and strategy.num_replicas_in_sync > 1:
        return "the model is distributed over several devices"
    stack = "tf_keras" if adapter.keras.__name__ == "tf_keras" else adapter.compute.name
    return _BY_STACK[stack](inside, window)
