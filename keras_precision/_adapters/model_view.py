"""ModelView: a Keras model with its adapter, inputs, layer paths and kind, looked up once per public call."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from keras_precision._adapters import KerasAdapter, adapter_of
from keras_precision._adapters.layer_paths import paths_of
from keras_precision.core.model_inputs import Input

__all__ = ["ModelView", "is_tfmot"]


@dataclass(frozen=True)
class ModelView:
    """A model, and what functions ask about it; what follows from its layers is looked up at the first question.

    Attributes:
        model: The Keras model.
        adapter: The adapter of its framework.
    """

    model: Any
    adapter: KerasAdapter

    @classmethod
    def of(cls, model: Any) -> Self:
        """Look at a model; raise ModelError for what is no object of Keras."""
        return cls(model, adapter_of(model))

    @classmethod
    def of_built(cls, model: Any) -> Self:
        """Look at a model; raise ModelError also for one that is subclassed or not built."""
        view = cls.of(model)
        _ = view.inputs
        return view

    @property
    def name(self) -> str:
        """The name of the model."""
        return str(self.model.name)

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """Its inputs, in its order."""
        return self.adapter.inputs(self.model)

    @cached_property
    def layers(self) -> dict[str, Any]:
        """Layer path to layer."""
        return paths_of(self.adapter, self.model)

    @cached_property
    def is_tfmot(self) -> bool:
        """Whether it is a quantization-aware model of TensorFlow Model Optimization."""
        return any(map(is_tfmot, self.layers.values()))

    @cached_property
    def is_quantize_aware(self) -> bool:
        """Whether it is a quantization-aware model of Keras 3, whose wrappers stand for the layers inside."""
        return any(hasattr(layer, "stands_for") for layer in self.layers.values())


def is_tfmot(layer: Any) -> bool:
    """Return whether a layer is a quantizing wrapper of TensorFlow Model Optimization."""
    return type(layer).__module__.startswith("tensorflow_model_optimization") and hasattr(layer, "quantize_config")
