"""ModelView: a Keras model with its adapter, inputs, layer paths and kind, looked up once per public call."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

from keras_precision._adapters import KerasAdapter, adapter_of
from keras_precision._adapters.functional_form import functional_form, shapes_of
from keras_precision._adapters.layer_paths import paths_of
from keras_precision.core.model_inputs import Input

__all__ = ["ModelView", "is_tfmot"]


@dataclass(frozen=True)
class ModelView:
    """A model, and what functions ask about it; what follows from its layers is looked up at the first question.

    Attributes:
        model: The Keras model.
        adapter: The adapter of its framework.
        shapes: The sizes, without the batch axis, of inputs that the model leaves free, by input name.
    """

    model: Any
    adapter: KerasAdapter
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

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

    @classmethod
    def callable(cls, model: Any, input_signature: Any = None) -> Self:
        """Look at a built model of any kind that can be called on symbolic inputs, with sizes for its free axes."""
        adapter = adapter_of(model)
        view = cls(functional_form(adapter, model, input_signature), adapter)
        return view if input_signature is None else view.with_shapes(shapes_of(input_signature, view.inputs))

    def with_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        """Return the view with sizes for the free axes of its inputs."""
        free = {entry.name: shapes[entry.name] for entry in self.inputs if None in entry.shape and entry.name in shapes}
        return replace(self, shapes={**self.shapes, **free}) if free else self

    @property
    def name(self) -> str:
        """The name of the model."""
        return str(self.model.name)

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """Its inputs, in its order."""
        inputs = self.adapter.inputs(self.model)
        return tuple(replace(entry, shape=self.shapes.get(entry.name, entry.shape)) for entry in inputs)

    @property
    def batch_size(self) -> int | None:
        """The size of its batches; None where it takes any."""
        sizes = [tensor.shape[0] for tensor in getattr(self.model, "inputs", None) or ()]
        return next((int(size) for size in sizes if size is not None), None)

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
