"""tf_keras: Keras 2, on TensorFlow."""

import functools
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras.src.mixed_precision import autocast_variable

from keras_precision._adapters.adapter import KerasAdapter, is_numbered, snake_case
from keras_precision._adapters.backend import Compute, compute_named
from keras_precision._adapters.training.batch_loss import BatchLoss
from keras_precision._adapters.training.data_wait import DataWait, UnknownDataWait
from keras_precision._adapters.training.loss_scaling import LossScaling, NoLossScaling
from keras_precision._adapters.training.restarted_loss import restarted_mean
from keras_precision.core.errors import InputError

__all__ = ["ADAPTER"]

# Graph operations that tf_keras wraps as layers (x * 2, tf.reshape(x)); Keras 3 has none such.
_OPERATIONS = (
    "TFOpLambda",
    "SlicingOpLambda",
    "ClassMethod",
    "InstanceMethod",
    "InstanceProperty",
    "TensorFlowOpLayer",
)


class LegacyAdapter(KerasAdapter):
    """tf_keras."""

    functional_classes = (tf_keras.Sequential, tf_keras.src.engine.functional.Functional)

    @functools.cached_property
    def compute(self) -> Compute:
        """TensorFlow: tf_keras has no other."""
        return compute_named("tensorflow")

    def children(self, model: Any) -> list[Any]:
        """Return ``model.layers`` without inputs and without operations that are no layers."""
        return [
            layer
            for layer in model.layers
            if not isinstance(layer, tf_keras.layers.InputLayer) and type(layer).__name__ not in _OPERATIONS
        ]

    def auto_name(self, layer: Any) -> str | None:
        """Return the stem, as ``tf_keras.src.utils.generic_utils.to_snake_case`` makes it."""
        kind = type(layer).__name__
        stem = snake_case(kind, "(.)([A-Z][a-z0-9]+)")
        if kind == "Functional" and is_numbered(layer.name, "model"):
            return stem  # made by Model(...), and named after that; Keras 3 names it 'functional'
        return stem if is_numbered(layer.name, stem) else None

    def input_names(self, model: Any) -> Sequence[Sequence[str]]:
        """Return the names of the input layers, and their keys."""
        structure = getattr(model, "_nested_inputs", None)
        if not isinstance(structure, dict):
            return [(name,) for name in model.input_names]
        return list(zip(model.input_names, sorted(structure), strict=True))  # tf.nest sorts keys

    def packed(self, model: Any, inputs: Sequence[Any]) -> Any:
        """Return the inputs in the structure of a functional model; sequential ones have none."""
        structure = getattr(model, "_nested_inputs", None)
        return inputs[0] if structure is None else tf.nest.pack_sequence_as(structure, list(inputs))

    def call(self, model: Any, inputs: Sequence[Any]) -> list[Any]:
        """Call the model on inputs in the structure that it was built with."""
        return list(tf.nest.flatten(model(self.packed(model, inputs), training=False)))

    def trained_call(self, model: Any, inputs: Sequence[Any]) -> Any:
        """Call the model: it is traced only."""
        return model(self.packed(model, inputs), training=True)

    def tensorflow_variables(self, model: Any) -> list[Any]:
        """Return the variables, out of the wrapper that mixed precision puts around them."""
        return [getattr(variable, "_variable", variable) for variable in model.variables]

    def loss_scaling(self, model: Any, optimizer: Any = None) -> LossScaling:
        """Return the reader for the optimizer that is given, or the model's own."""
        used = optimizer or getattr(model, "optimizer", None)
        if isinstance(used, tf_keras.mixed_precision.LossScaleOptimizer):
            return _LegacyLossScaling(model, used, compiled=optimizer is None)
        return NoLossScaling(certain=optimizer is None and not self.has_own_train_step(model))

    def bound_loss_scale(self, model: Any, min_scale: float, max_scale: float) -> None:
        """Check that the bounds are tf_keras's own: a floor of 1, and no step to infinity."""
        if min_scale != 1:
            raise InputError(
                f"Expected min_scale=1 for a tf_keras model, whose own floor that is. Received: {min_scale}."
            )

    def walk(self, layer: Any) -> Iterator[Any]:
        """Yield the pattern of a Bidirectional, too: it is not tracked, and what is saved is its configuration."""
        for inner in super().walk(layer):
            yield inner
            if isinstance(inner, tf_keras.layers.Bidirectional):
                yield from super().walk(inner.layer)

    def set_policy(self, layer: Any, precision: str) -> None:
        """Set the policy, and wrap the weights that were made without automatic casting."""
        layer._set_dtype_policy(precision)
        made_from = getattr(getattr(layer, "_auto_config", None), "config", {})
        if "dtype" in made_from:  # the arguments of a class without a get_config, which are what is saved of it
            made_from["dtype"] = precision
        if not layer._autocast or layer.compute_dtype == layer.variable_dtype:
            return
        wrapped = {}
        for weights in (layer._trainable_weights, layer._non_trainable_weights):
            for place, weight in enumerate(weights):
                if weight.dtype.is_floating and not hasattr(weight, "_variable"):
                    weights[place] = wrapped[id(weight)] = autocast_variable.create_autocast_variable(weight)
        for name, value in vars(layer).items():
            if id(value) in wrapped:
                vars(layer)[name] = wrapped[id(value)]  # past Keras's tracking of attributes

    def config_of(self, model: Any) -> dict[str, Any]:
        """Return ``get_config``, but for the shapes that layers were built with: that of a TimeDistributed is its layer's."""
        config: dict[str, Any] = _without_shapes(model.get_config())
        return config

    def is_loss_scaling(self, optimizer: Any) -> bool:
        """Compare with the class of tf_keras."""
        return isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)

    def scaled(self, optimizer: Any) -> Any:
        """Wrap it in that of tf_keras, which has a floor of 1."""
        return tf_keras.mixed_precision.LossScaleOptimizer(optimizer)

    def data_wait(self, model: Any) -> AbstractContextManager[DataWait]:
        """Tell that it is not known."""
        return nullcontext(UnknownDataWait("the compiled step pulls from the dataset by itself"))

    def batch_loss(self, model: Any) -> AbstractContextManager[BatchLoss]:
        """Begin the mean anew once it is NaN, where nobody else has written the training step."""
        tracker = getattr(getattr(model, "compiled_loss", None), "_total_loss_mean", None)
        if tracker is None or self.has_own_train_step(model) or model.distribute_strategy.num_replicas_in_sync > 1:
            return nullcontext(BatchLoss())
        return restarted_mean(model, tracker)

    def has_own_train_step(self, model: Any) -> bool:
        """Compare with that of tf_keras."""
        return type(model).train_step is not tf_keras.Model.train_step

    def samples_seen(self, model: Any) -> int | None:
        """Return what the mean of the loss was weighted with: Keras weights each batch with its size."""
        losses = getattr(model, "compiled_loss", None)
        metric = getattr(losses, "_total_loss_mean", None)
        count = None if metric is None else round(float(metric.count.numpy()))
        return count or None


class _LegacyLossScaling(LossScaling):
    """Counts skips inside the graph.

    tf_keras increments ``iterations`` on skipped steps too, so that nothing outside tells them
    apart. The optimizer's own decision is counted where it is made.
    """

    source = "counted inside the training step, where the optimizer decides"

    def __init__(self, model: Any, optimizer: Any, *, compiled: bool) -> None:
        self._model, self._optimizer, self._compiled = model, optimizer, compiled
        self._before, self._scale_before = 0, 0.0
        self._counter: Any = None

    def begin(self) -> None:
        state = self._optimizer._loss_scale
        if isinstance(state, (int, float)) or not hasattr(state, "update"):  # dynamic=False: a fixed scale never skips
            return
        self._counter = _SKIPS.get(state)
        if self._counter is None:
            self._counter = _SKIPS[state] = _count_skips(state)
            if self._compiled:
                self._model.make_train_function(force=True)  # a step that was traced before does not count
        self._before, self._scale_before = int(self._counter.numpy()), self.scale()

    def scale(self) -> float:
        return float(self._optimizer.loss_scale.numpy())

    def skipped(self, batches: int | None) -> int | None:
        if self._counter is None:
            return 0
        skipped = int(self._counter.numpy()) - self._before
        # A step of the user's own may have been traced before it could count: the scale betrays it.
        unseen = not self._compiled and skipped == 0 and self.scale() < self._scale_before
        return None if unseen else skipped


_SKIPS: "weakref.WeakKeyDictionary[Any, Any]" = weakref.WeakKeyDictionary()


def _without_shapes(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _without_shapes(value) for key, value in config.items() if key != "build_config"}
    return [_without_shapes(each) for each in config] if isinstance(config, list) else config


def _count_skips(state: Any) -> Any:
    """Make the state of a dynamic loss scale count the steps that it skips; return the counter."""
    counter = tf.Variable(0, dtype=tf.int64, trainable=False, name="skipped_steps")
    original = type(state).update

    def update(grads: Any) -> Any:
        operation, should_apply = original(state, grads)
        skipped = tf.cast(tf.logical_not(should_apply), tf.int64)
        return tf.group(*[op for op in (operation, counter.assign_add(skipped)) if op is not None]), should_apply

    state.update = update
    return counter


def scaling_variables(optimizer: Any) -> list[Any]:
    """Return the variables of an optimizer's loss scaling, our count of skipped steps among them.

    Args:
        optimizer: Any optimizer.

    Returns:
        They; empty where it scales no loss, or by a fixed factor.
    """
    state = getattr(optimizer, "_loss_scale", None)
    if state is None or not hasattr(state, "_current_loss_scale"):
        return []
    counter = _SKIPS.get(state)
    return [state._counter, state._current_loss_scale, *([] if counter is None else [counter])]


ADAPTER = LegacyAdapter(tf_keras)
