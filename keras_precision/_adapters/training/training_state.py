"""TrainingState: the variables of a training step, its loss, and its layers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from keras_precision._adapters.adapter import KerasAdapter

__all__ = ["TrainingState"]


class TrainingState(ABC):
    """A built model as its training step sees it."""

    def __init__(self, adapter: KerasAdapter, model: Any) -> None:
        self.adapter, self.model = adapter, model

    @property
    @abstractmethod
    def variables(self) -> list[Any]:
        """All that a step reads, without duplicates: weights, random state, metrics."""

    @abstractmethod
    def step_variables(self) -> list[Any]:
        """Return the variables that a training step changes, without duplicates, those of the optimizer included."""

    @abstractmethod
    def array(self, variable: Any) -> Any:
        """Return a variable's value as a NumPy array."""

    @abstractmethod
    def values(self) -> list[Any]:
        """Return the current value of all variables, as tensors that no later step changes or deletes."""

    @abstractmethod
    def trainable_values(self) -> list[Any]:
        """Return the current values of the trainable weights, not copied: for use before the next step."""

    @abstractmethod
    def substitute(self, values: Sequence[Any]) -> AbstractContextManager[Sequence[Any]]:
        """Give the variables other values inside a ``with`` block, and restore everything that changes in it.

        It yields what gradients are taken with respect to: the values, or the variables with these values.
        """

    @abstractmethod
    def loss(self, x: Any, y: Any, sample_weight: Any, values: Sequence[Any]) -> Any:
        """Run the model as for training on a value per variable; return its unscaled loss, None if there is none."""

    @abstractmethod
    def runs_a_loop(self, layer: Any) -> bool:
        """Tell whether a layer runs its inner layers in a loop of the framework."""

    @abstractmethod
    def copy_mask(self, source: Any, target: Any) -> None:
        """Give a tensor the mask of another one, if that has one."""

    @abstractmethod
    def flatten(self, structure: Any) -> list[Any]:
        """Return the leaves of a structure, None among them."""

    @abstractmethod
    def map_leaves(self, function: Callable[[Any], Any], structure: Any) -> Any:
        """Apply a function to the leaves of a structure that are not None."""

    @property
    def is_compiled(self) -> bool:
        """Whether it has a loss and an optimizer."""
        # Keras 3 says so publicly, tf_keras does not:
        # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/engine/training.py
        return bool(getattr(self.model, "compiled", False) or getattr(self.model, "_is_compiled", False))

    def _has_loss(self, y: Any) -> bool:
        """Whether there is a loss to compute: one of the labels, or one that layers add."""
        return self.is_compiled and (y is not None or not getattr(self.model, "loss", None))

    def trainable_indices(self) -> list[int]:
        """Return the indices of the trainable weights among the variables."""
        indices = {id(variable): index for index, variable in enumerate(self.variables)}
        return [indices[id(weight)] for weight in self._unique(self.model.trainable_variables)]

    def weights_by_path(self, paths: Mapping[str, Any]) -> dict[str, list[int]]:
        """Return layer path to the indices of the layer's weights among all trainable weights."""
        indices = {id(weight): index for index, weight in enumerate(self._unique(self.model.trainable_variables))}
        return {
            path: [indices[id(weight)] for weight in self._unique(layer.trainable_variables) if id(weight) in indices]
            for path, layer in paths.items()
        }

    def _unique(self, variables: Sequence[Any]) -> list[Any]:
        """Return variables in the form of ``self.variables``, without duplicates."""
        return list({id(variable): variable for variable in variables}.values())
