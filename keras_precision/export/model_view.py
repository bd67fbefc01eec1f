"""ModelView: a Keras model with its adapter, inputs and layer paths, looked up once per export."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from keras_precision._adapters import KerasAdapter, adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.model_inputs import Input
from keras_precision.quantization.qat.quantize_aware import is_prepared, is_quantize_aware

__all__ = ["ModelView"]


@dataclass(frozen=True)
class ModelView:
    """A model that can be exported.

    Attributes:
        model: The Keras model.
        adapter: The adapter of its framework.
        inputs: Its inputs, all of fixed size.
    """

    model: Any
    adapter: KerasAdapter
    inputs: Sequence[Input]

    @classmethod
    def of(cls, model: Any) -> Self:
        """Look at a model; raise for one that is subclassed, not built, or no Keras model."""
        adapter = adapter_of(model)
        return cls(model, adapter, adapter.inputs(model))

    @property
    def name(self) -> str:
        """The name of the model."""
        return str(self.model.name)

    @cached_property
    def layers(self) -> dict[str, Any]:
        """Layer path to layer."""
        return layer_paths(self.model)

    @cached_property
    def is_tfmot(self) -> bool:
        """Whether it is a quantization-aware model of TensorFlow Model Optimization."""
        return is_prepared(self.model)

    @cached_property
    def is_quantize_aware(self) -> bool:
        """Whether it is a quantization-aware model of Keras 3."""
        return is_quantize_aware(self.model)
