"""The training state of a Keras 3 model: everything runs in a stateless scope, which leaves the model unchanged."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras.src.backend.common import masking

from keras_precision._adapters.training.training_state import TrainingState

__all__ = ["Keras3TrainingState"]

_GROUPS = ("trainable_variables", "non_trainable_variables", "metrics_variables")


class Keras3TrainingState(TrainingState):
    """The training state of a Keras 3 model."""

    @property
    def variables(self) -> list[Any]:
        """The variables of the model and of its metrics."""
        groups = (getattr(self.model, name, ()) for name in _GROUPS)
        return self._unique([variable for group in groups for variable in group])

    def step_variables(self) -> list[Any]:
        """Return these, and the variables of the optimizer."""
        return self._unique([*self.variables, *self.model.optimizer.variables])

    def array(self, variable: Any) -> Any:
        """Convert it as Keras does."""
        return keras.ops.convert_to_numpy(variable)

    def values(self) -> list[Any]:
        """Return copies: on JAX, of the state outside the model while it trains, elsewhere of the variables."""
        state = self._jax_state()
        current: dict[int, Any] = {}
        if state:
            for name in _GROUPS:
                variables, values = getattr(self.model, name), state.get(name) or ()
                current |= {id(variable): value for variable, value in zip(variables, values, strict=False)}
        return [_copied(current.get(id(variable), variable)) for variable in self.variables]

    def trainable_values(self) -> list[Any]:
        """Return those that JAX has outside the model while it trains, elsewhere those of the variables."""
        state = self._jax_state()
        if state:
            return list(state["trainable_variables"])
        return [variable.value for variable in self.model.trainable_variables]

    def _jax_state(self) -> dict[str, Any] | None:
        """Return the state of a running epoch on JAX, where it is newer than the variables."""
        # The trainer has no public access to it, and jax_state_sync() would copy everything:
        # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/jax/trainer.py
        state: dict[str, Any] | None = getattr(self.model, "_jax_state", None)
        return None if not state or self.model._jax_state_synced else state

    @contextmanager
    def substitute(self, values: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """Do nothing: the values are those of the scope in which the loss is computed."""
        yield values

    def loss(self, x: Any, y: Any, sample_weight: Any, values: Sequence[Any]) -> Any:
        """Run the model in a scope that has the values, and discards assignments."""
        model = self.model
        mapping = list(zip(self.variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True):
            # As train_step does, because overrides of the public compute_loss may lack the argument training:
            # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/trainers/trainer.py
            predicted = model(x, training=True) if model._call_has_training_arg else model(x)
            if not self._has_loss(y):
                return None
            return model._compute_loss(x=x, y=y, y_pred=predicted, sample_weight=sample_weight, training=True)

    def runs_a_loop(self, layer: Any) -> bool:
        """Recognise recurrent layers, and those that map over time."""
        return isinstance(layer, (keras.layers.RNN, keras.layers.TimeDistributed))

    def copy_mask(self, source: Any, target: Any) -> None:
        """Copy the mask, which Keras stores in an attribute of the tensor."""
        # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/common/masking.py
        mask = masking.get_keras_mask(source)
        if mask is not None:
            masking.set_keras_mask(target, mask)

    def flatten(self, structure: Any) -> list[Any]:
        """Flatten as Keras does."""
        return list(keras.tree.flatten(structure))

    def map_leaves(self, function: Callable[[Any], Any], structure: Any) -> Any:
        """Map as Keras does."""
        return keras.tree.map_structure(lambda leaf: None if leaf is None else function(leaf), structure)


def _copied(value: Any) -> Any:
    """Return a copy of a value, which no later step overwrites or donates."""
    value = getattr(value, "value", value) if isinstance(value, keras.Variable) else value
    if hasattr(value, "read_value"):
        return value.read_value()  # TensorFlow copies on write
    return value.detach().clone() if hasattr(value, "detach") else value.copy()
