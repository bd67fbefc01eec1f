"""The inside of a model of Keras 3: everything runs in a stateless scope, which keeps all changes from the model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras.src.backend.common import masking

from keras_precision._adapters.training.training_state import Inside

__all__ = ["Keras3Inside"]

_GROUPS = ("trainable_variables", "non_trainable_variables", "metrics_variables")


class Keras3Inside(Inside):
    """A model of Keras 3."""

    @property
    def variables(self) -> list[Any]:
        """Those of the model, and of its metrics."""
        groups = (getattr(self.model, name, ()) for name in _GROUPS)
        return self._own([variable for group in groups for variable in group])

    def changed_by_a_step(self) -> list[Any]:
        """Return those, and the variables of the optimizer."""
        return self._own([*self.variables, *self.model.optimizer.variables])

    def array(self, variable: Any) -> Any:
        """Convert it as Keras does."""
        return keras.ops.convert_to_numpy(variable)

    def values(self) -> list[Any]:
        """Return copies of what JAX holds outside the model while it trains, and of the variables elsewhere."""
        state = getattr(self.model, "_jax_state", None)
        held: dict[int, Any] = {}
        if state and not self.model._jax_state_synced:
            for name in _GROUPS:
                variables, values = getattr(self.model, name), state.get(name) or ()
                held |= {id(variable): value for variable, value in zip(variables, values, strict=False)}
        return [_copied(held.get(id(variable), variable)) for variable in self.variables]

    def trained(self) -> list[Any]:
        """Return those that JAX holds outside the model while it trains, and the variables' own elsewhere."""
        state = getattr(self.model, "_jax_state", None)
        if state and not self.model._jax_state_synced:
            return list(state["trainable_variables"])
        return [variable.value for variable in self.model.trainable_variables]

    @contextmanager
    def given(self, values: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """Do nothing: the scope in which the loss is computed holds the values."""
        yield values

    def loss(self, x: Any, y: Any, sample_weight: Any, values: Sequence[Any]) -> Any:
        """Run the model in a scope that holds the values, and takes what it assigns."""
        model = self.model
        mapping = list(zip(self.variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True):
            predicted = model(x, training=True) if model._call_has_training_arg else model(x)
            if not self._can_lose(y):
                return None
            return model._compute_loss(x=x, y=y, y_pred=predicted, sample_weight=sample_weight, training=True)

    def runs_a_loop(self, layer: Any) -> bool:
        """Tell recurrent layers, and those that map over time."""
        return isinstance(layer, (keras.layers.RNN, keras.layers.TimeDistributed))

    def move_mask(self, source: Any, target: Any) -> None:
        """Carry the mask over as Keras keeps it."""
        mask = masking.get_keras_mask(source)
        if mask is not None:
            masking.set_keras_mask(target, mask)

    def flat(self, structure: Any) -> list[Any]:
        """Flatten as Keras does."""
        return list(keras.tree.flatten(structure))

    def mapped(self, function: Callable[[Any], Any], structure: Any) -> Any:
        """Map as Keras does."""
        return keras.tree.map_structure(lambda each: None if each is None else function(each), structure)


def _copied(value: Any) -> Any:
    """A tensor of a variable's own value, which no later step writes into or donates."""
    value = getattr(value, "value", value) if isinstance(value, keras.Variable) else value
    if hasattr(value, "read_value"):
        return value.read_value()  # TensorFlow copies on write
    return value.detach().clone() if hasattr(value, "detach") else value.copy()
