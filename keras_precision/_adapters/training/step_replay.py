"""Capture: the last steps of a fit, kept so that they can be run again."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_precision._adapters.tensors import tensors_of
from keras_precision._adapters.tracing.step_observer import Batch
from keras_precision._adapters.training.train_function import Around, put, take_away
from keras_precision._adapters.training.training_state import Inside

__all__ = ["Capture", "Replayed", "capture_of"]


@dataclass(frozen=True)
class Replayed:
    """One step that was run again.

    Attributes:
        batch: What it was run on.
        values: What ``inside.variables`` held before it.
        loss: The loss of its batch; None where the model tells none.
        weights_before: Whether its weights were finite.
        weights_after: Whether they were so after it.
        updated: Whether any weight changed.
        scale: The loss scale before it; None where there is none.
        state: All that was there before it, for ``Capture.restore``.
    """

    batch: Batch
    values: Sequence[Any]
    loss: float | None
    weights_before: bool
    weights_after: bool
    updated: bool
    scale: float | None
    state: Any = None

    @property
    def is_finite(self) -> bool:
        """Whether the loss and the weights after the step are finite."""
        return self.weights_after and (self.loss is None or math.isfinite(self.loss))


class Capture(Around, ABC):
    """A train function that keeps a copy of the state from time to time, and every batch since.

    Args:
        inside: The model, in a ``fit`` that has begun.
        window: Batches that are kept; then the state is copied anew.

    Attributes:
        batches: Those since the state was copied.
        on_full: Called before the state is copied anew, while the old one can still be run again.
    """

    def __init__(self, inside: Inside, window: int) -> None:
        super().__init__()
        self.inside, self.model, self._window = inside, inside.model, window
        self.batches: list[Any] = []
        self.on_full: Callable[[], None] | None = None
        self._state: Any = None
        self._replaying = False

    def step_begin(self) -> None:
        """Put it around the train function, wherever that was made anew."""
        put(self.model, self, innermost=True)  # whoever times the pulls must see the trainer's own iterator

    def remove(self) -> None:
        """Take it away, and let go of what was kept."""
        take_away(self.model, self)
        self.batches, self._state, self.on_full = [], None, None

    @property
    def is_full(self) -> bool:
        """Whether the next batch begins anew."""
        return len(self.batches) >= self._window

    @property
    def batch(self) -> Batch | None:
        """The batch that was trained last."""
        return self._unpacked(self.batches[-1]) if self.batches else None

    def keep(self, data: Any, copy: Callable[[], Any]) -> None:
        """Keep a batch, and before it the state where it is time."""
        if self._state is None or len(self.batches) >= self._window or self._is_other_state():
            if self.on_full is not None and self.batches:
                self.on_full()
            self.batches, self._state = [], copy()
        self.batches.append(data)

    def _is_other_state(self) -> bool:
        """Whether there are variables that the copy does not have, as those of an optimizer that was built since."""
        return False

    @abstractmethod
    def restore(self, step: Replayed) -> None:
        """Put the training back to where it was before a step; what was kept since is let go."""

    def weights_are_finite(self) -> bool:
        """Tell whether every trained weight is finite as it stands; it waits for the device."""
        return tensors_of(self.inside.adapter).all_finite(self.inside.trained())

    @abstractmethod
    def replay(self) -> Iterator[Replayed]:
        """Run the steps that were kept again, one by one, from the state before them; everything is put back afterwards."""

    def _unpacked(self, data: Any) -> Batch:
        """Inputs, labels and weights, as Keras tells them apart."""
        if isinstance(data, list):
            data = tuple(data)
        if not isinstance(data, tuple):
            return Batch(data)
        return Batch(*(*data, None, None)[:3])


class _InPlace(Capture):
    """A trainer that updates variables in place: TensorFlow and PyTorch."""

    def __call__(self, argument: Any) -> Any:
        data = self._pulled(argument)
        if not self._replaying:
            self.keep(data, self._copy)
        return self._step(data)

    @abstractmethod
    def _pulled(self, argument: Any) -> Any:
        """Return the batch of a step."""

    @abstractmethod
    def _step(self, data: Any) -> Any:
        """Train on a batch; return the logs."""

    def _is_other_state(self) -> bool:
        return len(self.inside.changed_by_a_step()) != len(self._state)

    def _copy(self) -> list[tuple[Any, Any]]:
        return [(variable, _copied(variable)) for variable in self.inside.changed_by_a_step()]

    def replay(self) -> Iterator[Replayed]:
        if self._state is None:
            return
        now, batches = self._copy(), list(self.batches)
        self._replaying = True
        try:
            _assign(self._state)
            for data in batches:
                for metric in self.model.metrics:
                    metric.reset_state()
                yield self._again(data)
        finally:
            _assign(now)
            self._replaying = False

    def _again(self, data: Any) -> Replayed:
        values, scale, state = self.inside.values(), self.inside.adapter.loss_scaling(self.model).scale(), self._copy()
        before = self._weights()
        logs = self._step(data)
        after = self._weights()
        return Replayed(
            self._unpacked(data),
            values,
            _loss(logs),
            _finite(before),
            _finite(after),
            _differ(before, after),
            scale,
            state,
        )

    def restore(self, step: Replayed) -> None:
        _assign(step.state)
        self.batches, self._state = [], None

    def _weights(self) -> list[Any]:
        return [self.inside.array(variable) for variable in self.model.trainable_variables]


class _TensorFlowCapture(_InPlace):
    def _pulled(self, iterator: Any) -> Any:
        return next(iter(iterator))

    def _step(self, data: Any) -> Any:
        return self.inner([data])  # Keras runs a plain list of batches, too


class _LegacyCapture(_InPlace):
    """tf_keras traces the pull from the iterator with the step; here, the step is traced alone."""

    def __init__(self, inside: Inside, window: int) -> None:
        super().__init__(inside, window)
        self._made_for: Any = None
        self._train: Any = None
        self._retrain: Any = None

    def _pulled(self, iterator: Any) -> Any:
        return next(iterator)

    def _step(self, data: Any) -> Any:
        if self._made_for is not self.inner:  # somebody made the train function anew, as for other policies
            # Random operations of TensorFlow keep their state in the traced function: what is run again has one of its own.
            self._train, self._retrain, self._made_for = self._traced(), self._traced(), self.inner
        return self._retrain(data) if self._replaying else self._train(data)

    def _traced(self) -> Any:
        import tensorflow as tf

        def step(data: Any) -> Any:
            logs = self.model.train_step(data)
            self.model._train_counter.assign_add(1)
            return logs

        jit = True if getattr(self.model, "_jit_compile", False) else None
        return step if self.model.run_eagerly else tf.function(step, reduce_retracing=True, jit_compile=jit)


class _TorchCapture(_InPlace):
    def _pulled(self, data: Any) -> Any:
        return data[0]

    def _step(self, data: Any) -> Any:
        return self.inner([data])


class _JaxCapture(Capture):
    """A trainer that hands its state from step to step: it need not be put back."""

    def __init__(self, inside: Inside, window: int) -> None:
        super().__init__(inside, window)
        import jax

        self._jax = jax
        # One call for all of them; the arrays themselves are given away to the next step.
        self._copied = jax.jit(lambda state: jax.tree.map(lambda each: each.copy(), state))

    def __call__(self, state: Any, iterator: Any) -> Any:
        data = next(iterator)
        self.keep(data, lambda: self._copied(state))
        return self.inner(state, iter([data]))

    def replay(self) -> Iterator[Replayed]:
        if self._state is None:
            return
        state = self._copied(self._state)
        for data in list(self.batches):
            trained, others, slots, metrics = state
            metrics = [self._jax.numpy.zeros_like(each) for each in metrics]
            before, kept = self._jax.device_get(trained), self._copied((trained, others, slots, metrics))
            scale = self._scale(slots)
            logs, state = self.inner((trained, others, slots, metrics), iter([data]))
            after = self._jax.device_get(state[0])
            values = [each for group in (kept[0], kept[1], kept[3]) for each in group]
            yield Replayed(
                self._unpacked(data),
                values,
                _loss(logs),
                _finite(before),
                _finite(after),
                _differ(before, after),
                scale,
                kept,
            )

    def restore(self, step: Replayed) -> None:
        model = self.model
        model.jax_state_sync()  # the trainer takes the state up anew from the variables
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
        place = next(place for place, each in enumerate(optimizer.variables) if each is scale)
        return float(slots[place])


def _copied(variable: Any) -> Any:
    value = getattr(variable, "value", None)
    held = variable if value is None or callable(value) else value
    if hasattr(held, "read_value"):
        return held.read_value()
    return held.detach().clone()


def _assign(state: Sequence[tuple[Any, Any]]) -> None:
    for variable, value in state:
        variable.assign(value)


def _loss(logs: Any) -> float | None:
    loss = logs.get("loss") if hasattr(logs, "get") else None
    return None if loss is None else float(loss)


def _finite(weights: Sequence[Any]) -> bool:
    return all(bool(np.isfinite(np.asarray(each, np.float32)).all()) for each in weights)


def _differ(before: Sequence[Any], after: Sequence[Any]) -> bool:
    return any(not np.array_equal(one, other) for one, other in zip(before, after, strict=True))


_BY_STACK: dict[str, type[Capture]] = {
    "tensorflow": _TensorFlowCapture,
    "jax": _JaxCapture,
    "torch": _TorchCapture,
    "tf_keras": _LegacyCapture,
}


def capture_of(inside: Inside, window: int) -> Capture | str:
    """Return what keeps the last steps of a model's ``fit``.

    Args:
        inside: The model, in a ``fit`` that has begun.
        window: Batches that are kept.

    Returns:
        It, not yet around the train function; or why that cannot be.
    """
    model, adapter = inside.model, inside.adapter
    steps = getattr(model, "steps_per_execution", None) or getattr(model, "_steps_per_execution", None)
    if steps is not None and int(steps) > 1:
        return "steps_per_execution is above 1: single batches pass nobody by"
    strategy = getattr(model, "distribute_strategy", None)
    if strategy is not None and strategy.num_replicas_in_sync > 1:
        return "the model is distributed over several devices"
    stack = "tf_keras" if adapter.keras.__name__ == "tf_keras" else adapter.compute.name
    return _BY_STACK[stack](inside, window)
