"""The inside of a model of tf_keras: it runs on the variables themselves, which are put back afterwards."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
import tf_keras

from keras_precision._adapters.tf_keras.adapter import scaling_variables
from keras_precision._adapters.training.training_state import Inside

__all__ = ["LegacyInside"]


class LegacyInside(Inside):
    """A model of tf_keras."""

    @property
    def variables(self) -> list[Any]:
        """Those of the model, and of its metrics."""
        metrics = [variable for metric in self.model.metrics for variable in metric.variables]
        return self._own([*self.model.variables, *metrics])

    def _own(self, variables: Sequence[Any]) -> list[Any]:
        """Take variables out of the wrapper that mixed precision puts around them."""
        return super()._own([getattr(variable, "_variable", variable) for variable in variables])

    def changed_by_a_step(self) -> list[Any]:
        """Return those, the variables of the optimizer, and the state of its loss scaling, which it does not name."""
        optimizer = self.model.optimizer
        slots = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
        return self._own([*self.variables, *slots, *scaling_variables(optimizer), self.model._train_counter])

    def array(self, variable: Any) -> Any:
        """Ask TensorFlow."""
        return variable.numpy()

    def values(self) -> list[Any]:
        """Return the values; TensorFlow copies on write."""
        return [variable.read_value() for variable in self.variables]

    def trained(self) -> list[Any]:
        """Return the variables."""
        return self._own(self.model.trainable_variables)

    @contextmanager
    def given(self, values: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """Assign the values, and then what was there before."""
        before = list(zip(self.variables, self.values(), strict=True))
        for (variable, _), value in zip(before, values, strict=False):
            variable.assign(value)
        try:
            yield [variable for variable, _ in before]
        finally:
            for variable, value in before:
                variable.assign(value)

    def loss(self, x: Any, y: Any, sample_weight: Any, values: Sequence[Any]) -> Any:
        """Run the model on the values that it holds."""
        predicted = self.model(x, training=True)
        return self.model.compute_loss(x, y, predicted, sample_weight) if self._can_lose(y) else None

    def runs_a_loop(self, layer: Any) -> bool:
        """Tell recurrent layers, and those that map over time."""
        return isinstance(layer, (tf_keras.layers.RNN, tf_keras.layers.TimeDistributed))

    def move_mask(self, source: Any, target: Any) -> None:
        """Carry the mask over: it is an attribute of the tensor."""
        mask = getattr(source, "_keras_mask", None)
        if mask is not None:
            target._keras_mask = mask

    def flat(self, structure: Any) -> list[Any]:
        """Flatten as TensorFlow does."""
        return list(tf.nest.flatten(structure))

    def mapped(self, function: Callable[[Any], Any], structure: Any) -> Any:
        """Map as TensorFlow does."""
        return tf.nest.map_structure(lambda each: None if each is None else function(each), structure)
