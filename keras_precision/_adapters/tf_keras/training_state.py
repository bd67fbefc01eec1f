"""The training state of a tf_keras model: it runs on the variables themselves, which are restored afterwards."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
import tf_keras

from keras_precision._adapters.tf_keras.adapter import scaling_variables
from keras_precision._adapters.training.training_state import TrainingState

__all__ = ["LegacyTrainingState"]


class LegacyTrainingState(TrainingState):
    """The training state of a tf_keras model."""

    @property
    def variables(self) -> list[Any]:
        """The variables of the model and of its metrics."""
        metrics = [variable for metric in self.model.metrics for variable in metric.variables]
        return self._unique([*self.model.variables, *metrics])

    def _unique(self, variables: Sequence[Any]) -> list[Any]:
        """Unwrap the AutoCastVariables of mixed precision."""
        # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/mixed_precision/autocast_variable.py
        return super()._unique([getattr(variable, "_variable", variable) for variable in variables])

    def step_variables(self) -> list[Any]:
        """Return these, the variables of the optimizer, and those of its loss scaling, which it does not list."""
        # fit counts steps in _train_counter: https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/engine/training.py
        optimizer = self.model.optimizer
        slots = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
        return self._unique([*self.variables, *slots, *scaling_variables(optimizer), self.model._train_counter])

    def array(self, variable: Any) -> Any:
        """Convert it as TensorFlow does."""
        return variable.numpy()

    def values(self) -> list[Any]:
        """Return the values; TensorFlow copies on write."""
        return [variable.read_value() for variable in self.variables]

    def trainable_values(self) -> list[Any]:
        """Return the variables."""
        return self._unique(self.model.trainable_variables)

    @contextmanager
    def substitute(self, values: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """Assign the values, and afterwards the former ones."""
        before = list(zip(self.variables, self.values(), strict=True))
        for (variable, _), value in zip(before, values, strict=False):
            variable.assign(value)
        try:
            yield [variable for variable, _ in before]
        finally:
            for variable, value in before:
                variable.assign(value)

    def loss(self, x: Any, y: Any, sample_weight: Any, values: Sequence[Any]) -> Any:
        """Run the model on the current values of its variables."""
        predicted = self.model(x, training=True)
        return self.model.compute_loss(x, y, predicted, sample_weight) if self._has_loss(y) else None

    def runs_a_loop(self, layer: Any) -> bool:
        """Recognise recurrent layers, and those that map over time."""
        return isinstance(layer, (tf_keras.layers.RNN, tf_keras.layers.TimeDistributed))

    def copy_mask(self, source: Any, target: Any) -> None:
        """Copy the mask, an attribute of the tensor."""
        # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/engine/base_layer.py (_set_mask_metadata)
        mask = getattr(source, "_keras_mask", None)
        if mask is not None:
            target._keras_mask = mask

    def flatten(self, structure: Any) -> list[Any]:
        """Flatten as TensorFlow does."""
        return list(tf.nest.flatten(structure))

    def map_leaves(self, function: Callable[[Any], Any], structure: Any) -> Any:
        """Map as TensorFlow does."""
        return tf.nest.map_structure(lambda leaf: None if leaf is None else function(leaf), structure)
