"""Keras 3, on TensorFlow, JAX or PyTorch."""

import functools
from collections.abc import Sequence
from typing import Any

import keras

from keras_precision._adapters.compute import Compute, compute_named
from keras_precision._adapters.keras import KerasAdapter, is_numbered, snake_case
from keras_precision._adapters.loss_scaling import LossScaling, NoLossScaling

__all__ = ["ADAPTER"]


class Keras3Adapter(KerasAdapter):
    """Keras 3."""

    functional_classes = (keras.Sequential, keras.src.models.functional.Functional)

    @functools.cached_property
    def compute(self) -> Compute:
        """The backend of this process: Keras 3 has one."""
        return compute_named(keras.backend.backend())

    def children(self, model: Any) -> list[Any]:
        """Return ``model.layers`` without inputs."""
        return [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]

    def auto_name(self, layer: Any) -> str | None:
        """Return the stem, as ``keras.src.utils.naming.auto_name`` makes it."""
        stem = snake_case(type(layer).__name__, "(.)([A-Z][a-z]+)")
        return stem if is_numbered(layer.name, stem) else None

    def input_names(self, model: Any) -> Sequence[str]:
        """Return the names of the symbolic inputs."""
        return [tensor.name for tensor in model.inputs]

    def call(self, model: Any, inputs: Sequence[Any]) -> list[Any]:
        """Call the model on inputs in the structure that it was built with."""
        structure = getattr(model, "_inputs_struct", None)  # only functional models have one
        packed = keras.tree.pack_sequence_as(structure, list(inputs)) if structure is not None else inputs[0]
        return list(keras.tree.flatten(model(packed, training=False)))

    def tensorflow_variables(self, model: Any) -> list[Any]:
        """Return the variables that Keras's own wrap."""
        return [variable.value for variable in model.variables]

    def loss_scaling(self, model: Any) -> LossScaling:
        """Return the reader for the model's optimizer."""
        optimizer = getattr(model, "optimizer", None)
        return (
            _Keras3LossScaling(model) if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) else NoLossScaling()
        )

    def samples_seen(self, model: Any) -> int | None:
        """Return what the mean of the loss was weighted with: Keras weights each batch with its size."""
        tracker = getattr(model, "_loss_tracker", None)
        count = None if tracker is None else round(float(keras.ops.convert_to_numpy(tracker.count)))
        return count or None


class _Keras3LossScaling(LossScaling):
    """Counts skips by the inner optimizer's own counter.

    The LossScaleOptimizer does not call the inner optimizer when a gradient is not finite, so that
    batches = increments of ``inner._iterations`` + skipped steps. The public ``iterations`` would be
    wrong: it is divided by ``gradient_accumulation_steps`` (keras.src.optimizers.base_optimizer).
    """

    source = "batches minus the inner optimizer's iterations: exact where each batch makes one update"

    def __init__(self, model: Any) -> None:
        self._optimizer = model.optimizer
        # A train_step of the user's own may update twice in a batch, or never.
        self._one_update_per_batch = type(model).train_step in _TRAIN_STEPS
        self._before = 0

    def begin(self) -> None:
        self._before = self._iterations()

    def scale(self) -> float | None:
        # Created when the optimizer is built, on TensorFlow in the first step.
        scale = getattr(self._optimizer, "dynamic_scale", None)
        return None if scale is None else float(keras.ops.convert_to_numpy(scale))

    def skipped(self, batches: int | None) -> int | None:
        if batches is None or not self._one_update_per_batch:
            return None
        skipped = batches - (self._iterations() - self._before)
        return skipped if 0 <= skipped <= batches else None

    def _iterations(self) -> int:
        return int(keras.ops.convert_to_numpy(self._optimizer.inner_optimizer._iterations))


_TRAIN_STEPS = (keras.Model.train_step, keras.Sequential.train_step)
ADAPTER = Keras3Adapter(keras, "Keras 3")
