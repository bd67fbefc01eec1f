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

    def input_names(self, model: Any) -> Sequence[Sequence[str]]:
        """Return the names of the symbolic inputs, and their keys."""
        structure = getattr(model, "_inputs_struct", None)
        names = [(tensor.name,) for tensor in model.inputs]
        if not isinstance(structure, dict):
            return names
        keys = [path[-1:] for path, _ in keras.tree.flatten_with_path(structure)]
        return [name + key for name, key in zip(names, keys, strict=True)]

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
        if isinstance(getattr(model, "optimizer", None), keras.optimizers.LossScaleOptimizer):
            return _Keras3LossScaling(model)
        return NoLossScaling(certain=type(model).train_step in _TRAIN_STEPS)

    def bound_loss_scale(self, model: Any, min_scale: float, max_scale: float) -> None:
        """Put a bounded optimizer in the place of Keras's own, with its state, around the same inner optimizer."""
        from keras_precision._adapters.loss_scale_optimizer import LossScaleOptimizer

        old = model.optimizer
        if not isinstance(old, keras.optimizers.LossScaleOptimizer):
            return
        initial = min(max(old.initial_scale, min_scale), max_scale)
        bounded = LossScaleOptimizer(
            old.inner_optimizer, initial, old.dynamic_growth_steps, min_scale=min_scale, max_scale=max_scale
        )
        if old.built:
            bounded.build(model.trainable_variables)
            bounded.dynamic_scale.assign(keras.ops.clip(old.dynamic_scale, min_scale, max_scale))
            bounded.step_counter.assign(old.step_counter)
        model.optimizer = bounded
        model.make_train_function(force=True)  # a step that was traced before holds the old optimizer

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

    def __init__(self, model: Any) -> None:
        self._model = model
        # A train_step of the user's own may update twice in a batch, or never.
        self._one_update_per_batch = type(model).train_step in _TRAIN_STEPS
        self._before = 0

    @property
    def source(self) -> str:
        if self._one_update_per_batch:
            return "batches minus the inner optimizer's iterations"
        return "unknown: the train_step is the user's own, and may update more than once in a batch, or never"

    def begin(self) -> None:
        self._before = self._iterations()

    def scale(self) -> float | None:
        # Created when the optimizer is built, on TensorFlow in the first step.
        self._synchronize()
        scale = getattr(self._model.optimizer, "dynamic_scale", None)
        return None if scale is None else float(keras.ops.convert_to_numpy(scale))

    def skipped(self, batches: int | None) -> int | None:
        if batches is None or not self._one_update_per_batch:
            return None
        skipped = batches - (self._iterations() - self._before)
        return skipped if 0 <= skipped <= batches else None

    def _iterations(self) -> int:
        self._synchronize()
        return int(keras.ops.convert_to_numpy(self._model.optimizer.inner_optimizer._iterations))

    def _synchronize(self) -> None:
        """On JAX, the state of a running epoch is outside the model until it is asked for."""
        synchronize = getattr(self._model, "jax_state_sync", None)
        if synchronize is not None:
            synchronize()


_TRAIN_STEPS = (keras.Model.train_step, keras.Sequential.train_step)
ADAPTER = Keras3Adapter(keras)
