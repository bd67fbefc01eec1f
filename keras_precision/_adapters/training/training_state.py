"""Inside: a model as its training step sees it: its state, its loss, its layers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from keras_precision._adapters.adapter import KerasAdapter

__all__ = ["Inside"]


class Inside(ABC):
    """A model as its training step sees it.

    Args:
        adapter: Its Keras.
        model: A built model.
    """

    def __init__(self, adapter: KerasAdapter, model: Any) -> None:
        self.adapter, self.model = adapter, model

    @property
    @abstractmethod
    def variables(self) -> list[Any]:
        """All that a step reads: weights that are trained or not, random state, metrics; each once."""

    @abstractmethod
    def changed_by_a_step(self) -> list[Any]:
        """Return the variables that a training step changes, those of the optimizer among them; each once."""

    @abstractmethod
    def array(self, variable: Any) -> Any:
        """Return a variable's value as NumPy has it."""

    @abstractmethod
    def values(self) -> list[Any]:
        """Return the value of each variable as it stands, as tensors that no later step changes or takes away."""

    @abstractmethod
    def trained(self) -> list[Any]:
        """Return the value of each weight that is trained, not copied: it is to be looked at now."""

    @abstractmethod
    def given(self, values: Sequence[Any]) -> AbstractContextManager[Sequence[Any]]:
        """Let the model hold other values for a while, and put back everything that changes in the meantime.

        Args:
            values: One for each variable.

        Yields:
            What gradients are taken after, one for each variable, where that are not the values themselves.
        """

    @abstractmethod
    def loss(self, x: Any, y: Any, sample_weight: Any, values: Sequence[Any]) -> Any:
        """Run the model as for training, and return its loss, not scaled; None if there is none.

        Args:
            x: Inputs.
            y: Labels, or None.
            sample_weight: Weights of samples, or None.
            values: One for each variable.
        """

    @abstractmethod
    def runs_a_loop(self, layer: Any) -> bool:
        """Tell whether a layer runs those inside it in a loop of the framework's."""

    @abstractmethod
    def move_mask(self, source: Any, target: Any) -> None:
        """Give a tensor the mask that another one carries, if it does."""

    @abstractmethod
    def flat(self, structure: Any) -> list[Any]:
        """Return the leaves of a structure, None among them."""

    @abstractmethod
    def mapped(self, function: Callable[[Any], Any], structure: Any) -> Any:
        """Return a structure of what a function makes of each leaf that is not None."""

    @property
    def is_compiled(self) -> bool:
        """Whether it has a loss and an optimizer."""
        return bool(getattr(self.model, "compiled", False) or getattr(self.model, "_is_compiled", False))

    def _can_lose(self, y: Any) -> bool:
        """Whether there is a loss to compute: one of the labels, or one that layers add."""
        return self.is_compiled and (y is not None or not getattr(self.model, "loss", None))

    def trainable_places(self) -> list[int]:
        """Return the places, among the variables, of those that are trained."""
        place = {id(variable): number for number, variable in enumerate(self.variables)}
        return [place[id(each)] for each in self._own(self.model.trainable_variables)]

    def weights_by_path(self, paths: Mapping[str, Any]) -> dict[str, list[int]]:
        """Return, for each layer, the places of its weights among those that are trained.

        Args:
            paths: Layer path to layer.
        """
        place = {id(each): number for number, each in enumerate(self._own(self.model.trainable_variables))}
        return {
            path: [place[id(each)] for each in self._own(layer.trainable_variables) if id(each) in place]
            for path, layer in paths.items()
        }

    def _own(self, variables: Sequence[Any]) -> list[Any]:
        """Variables as ``variables`` has them, each once."""
        return list({id(each): each for each in variables}.values())
