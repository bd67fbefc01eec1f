"""LegacyAdapter: tf_keras, which is Keras 2 on TensorFlow."""

import functools
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras.src.mixed_precision import autocast_variable

from keras_precision._adapters.adapter import KerasAdapter, is_numbered, recompute_constants, snake_case
from keras_precision._adapters.backend import Compute, get_compute
from keras_precision._adapters.training.batch_loss import BatchLoss
from keras_precision._adapters.training.data_wait import DataWait, UnknownDataWait
from keras_precision._adapters.training.loss_scaling import LossScaling, NoLossScaling
from keras_precision._adapters.training.restarted_loss import restart_mean
from keras_precision.core.errors import InputError

__all__ = ["ADAPTER"]

# Graph operations that tf_keras wraps as layers (x * 2, tf.reshape(x)), which Keras 3 does not:
# https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/layers/core/tf_op_layer.py
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
        """TensorFlow, the only backend of tf_keras."""
        return get_compute("tensorflow")

    def children(self, model: Any) -> list[Any]:
        """Return ``model.layers`` without inputs and without operations wrapped as layers."""
        return [
            layer
            for layer in model.layers
            if not isinstance(layer, tf_keras.layers.InputLayer) and type(layer).__name__ not in _OPERATIONS
        ]

    def auto_name(self, layer: Any) -> str | None:
        """Return the name without its number."""
        # As in https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/utils/generic_utils.py (to_snake_case).
        kind = type(layer).__name__
        stem = snake_case(kind, "(.)([A-Z][a-z0-9]+)")
        if kind == "Functional" and is_numbered(layer.name, "model"):
            return stem  # tf_keras names it after Model(...), Keras 3 'functional'
        return stem if is_numbered(layer.name, stem) else None

    def input_names(self, model: Any) -> Sequence[Sequence[str]]:
        """Return the names of the input layers, and their keys."""
        # The structure that a model was built with is private:
        # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/engine/functional.py
        structure = getattr(model, "_nested_inputs", None)
        if not isinstance(structure, dict):
            return [(name,) for name in model.input_names]
        return list(zip(model.input_names, sorted(structure), strict=True))  # tf.nest sorts keys

    def packed(self, model: Any, inputs: Sequence[Any]) -> Any:
        """Pack the inputs into the structure of a functional model; a sequential one takes one input."""
        structure = getattr(model, "_nested_inputs", None)
        return inputs[0] if structure is None else tf.nest.pack_sequence_as(structure, list(inputs))

    def flat(self, structure: Any) -> list[Any]:
        """Flatten as TensorFlow does."""
        return list(tf.nest.flatten(structure))

    def call(self, model: Any, inputs: Sequence[Any]) -> list[Any]:
        """Call the model on inputs in the structure that it was built with."""
        return self.flat(model(self.packed(model, inputs), training=False))

    def call_for_training(self, model: Any, inputs: Sequence[Any]) -> Any:
        """Call the model, which is only traced."""
        return model(self.packed(model, inputs), training=True)

    def adapted_arguments(self, layer: Any) -> dict[str, Any]:
        """Return also the bins of a Discretization, which Keras 3 has in its configuration."""
        if isinstance(layer, tf_keras.layers.Discretization) and layer.input_bin_boundaries is None:
            bins = list(layer.bin_boundaries)
            return {"input_bin_boundaries": bins, "num_bins": None} if bins else {}
        return super().adapted_arguments(layer)

    @contextmanager
    def without_changes(self, model: Any) -> Iterator[None]:
        """Assign the former values."""
        variables = [variable for variable in model.non_trainable_variables if hasattr(variable, "assign")]
        variables += [state for layer in self.walk(model) for state in self.recurrent_states(layer)]
        former = [(variable, variable.numpy()) for variable in variables]
        try:
            yield
        finally:
            for variable, value in former:
                variable.assign(value)

    def tensorflow_variables(self, model: Any) -> list[Any]:
        """Return the variables inside the AutoCastVariables of mixed precision."""
        # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/mixed_precision/autocast_variable.py
        return [getattr(variable, "_variable", variable) for variable in model.variables]

    def loss_scaling(self, model: Any, optimizer: Any = None) -> LossScaling:
        """Return the reader for the optimizer, by default the model's own."""
        used = optimizer or getattr(model, "optimizer", None)
        if isinstance(used, tf_keras.mixed_precision.LossScaleOptimizer):
            return _LegacyLossScaling(model, used, compiled=optimizer is None)
        return NoLossScaling(certain=optimizer is None and not self.has_own_train_step(model))

    def bound_loss_scale(self, model: Any, min_scale: float, max_scale: float) -> None:
        """Check that the floor is 1, that of tf_keras, which also never doubles the scale to infinity."""
        if min_scale != 1:
            raise InputError(
                f"Expected min_scale=1 for a tf_keras model, whose optimizer has this floor. Received: {min_scale}. "
                "Omit min_scale, or use Keras 3."
            )

    def walk(self, layer: Any) -> Iterator[Any]:
        """Yield also the template layer of a Bidirectional, which is not tracked, but whose configuration is saved."""
        for inner in super().walk(layer):
            yield inner
            if isinstance(inner, tf_keras.layers.Bidirectional):
                yield from super().walk(inner.layer)

    def set_policy(self, layer: Any, precision: str) -> None:
        """Set the policy, and wrap the weights that were created without autocasting."""
        # dtype_policy has no setter, and add_weight wraps a weight only when it creates it:
        # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/engine/base_layer.py
        layer._set_dtype_policy(precision)
        # Of a class without get_config, the recorded arguments of its constructor are saved.
        arguments = getattr(getattr(layer, "_auto_config", None), "config", {})
        if "dtype" in arguments:
            arguments["dtype"] = precision
        recompute_constants(self, layer)
        if not layer._autocast or layer.compute_dtype == layer.variable_dtype:
            return
        wrapped = {}
        for weights in (layer._trainable_weights, layer._non_trainable_weights):
            for place, weight in enumerate(weights):
                if weight.dtype.is_floating and not hasattr(weight, "_variable"):
                    weights[place] = wrapped[id(weight)] = autocast_variable.create_autocast_variable(weight)
        for name, value in vars(layer).items():
            if id(value) in wrapped:
                vars(layer)[name] = wrapped[id(value)]  # avoids the tracking in Layer.__setattr__

    def config_of(self, model: Any) -> dict[str, Any]:
        """Return ``get_config`` without build shapes: that of a TimeDistributed is wrong (it is its inner layer's)."""
        config: dict[str, Any] = _without_shapes(model.get_config())
        return config

    def is_loss_scaling(self, optimizer: Any) -> bool:
        """Compare with the class of tf_keras."""
        return isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)

    def scaled(self, optimizer: Any, **options: Any) -> Any:
        """Wrap it in the optimizer of tf_keras, which has a floor of 1, and of the options an initial scale."""
        initial = options.get("initial_scale")
        # It refuses an optimizer that another one has wrapped, whether or not that one is still in use:
        # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/mixed_precision/loss_scale_optimizer.py
        optimizer._is_wrapped_by_loss_scale_optimizer = False
        return tf_keras.mixed_precision.LossScaleOptimizer(optimizer, initial_scale=initial)

    def load(self, path: str, **options: Any) -> Any:
        """Load a model, and let its layers compute what tf_keras saves no more than the data of: bins."""
        model = super().load(path, **options)
        for layer in self.walk(model):
            layer.finalize_state()
        return model

    def data_wait(self, model: Any) -> AbstractContextManager[DataWait]:
        """Report that the wait is unknown."""
        return nullcontext(UnknownDataWait("the compiled step pulls from the dataset by itself"))

    def batch_loss(self, model: Any) -> AbstractContextManager[BatchLoss]:
        """Restart the mean once it is NaN, where the training step is that of tf_keras."""
        # The metric of the loss has no public name:
        # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/engine/compile_utils.py (LossesContainer)
        tracker = getattr(getattr(model, "compiled_loss", None), "_total_loss_mean", None)
        if tracker is None or self.has_own_train_step(model) or model.distribute_strategy.num_replicas_in_sync > 1:
            return nullcontext(BatchLoss())
        return restart_mean(model, tracker)

    def has_own_train_step(self, model: Any) -> bool:
        """Compare with the training step of tf_keras."""
        return type(model).train_step is not tf_keras.Model.train_step

    def samples_seen(self, model: Any) -> int | None:
        """Return the weight of the mean loss, in which Keras weights batches by their size."""
        losses = getattr(model, "compiled_loss", None)
        metric = getattr(losses, "_total_loss_mean", None)
        count = None if metric is None else round(float(metric.count.numpy()))
        return count or None


class _LegacyLossScaling(LossScaling):
    """Counts skipped steps inside the graph."""

    # tf_keras increments iterations on skipped steps, too, so the decision of the optimizer is counted where it happens,
    # in the update of its private state:
    # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/mixed_precision/loss_scale_optimizer.py

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
                self._model.make_train_function(force=True)  # an existing step was traced without the counter
        self._before, self._scale_before = int(self._counter.numpy()), self.scale()

    def scale(self) -> float:
        return float(self._optimizer.loss_scale.numpy())

    def skipped(self, batches: int | None) -> int | None:
        if self._counter is None:
            return 0
        skipped = int(self._counter.numpy()) - self._before
        # A custom step may have been traced before the counter existed; then the scale has dropped without a count.
        unseen = not self._compiled and skipped == 0 and self.scale() < self._scale_before
        return None if unseen else skipped


_SKIPS: "weakref.WeakKeyDictionary[Any, Any]" = weakref.WeakKeyDictionary()


def _without_shapes(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _without_shapes(value) for key, value in config.items() if key != "build_config"}
    return [_without_shapes(item) for item in config] if isinstance(config, list) else config


def _count_skips(state: Any) -> Any:
    """Let the state of a dynamic loss scale count skipped steps; return the counter."""
    counter = tf.Variable(0, dtype=tf.int64, trainable=False, name="skipped_steps")
    original = type(state).update

    def update(grads: Any) -> Any:
        operation, should_apply = original(state, grads)
        skipped = tf.cast(tf.logical_not(should_apply), tf.int64)
        return tf.group(*[op for op in (operation, counter.assign_add(skipped)) if op is not None]), should_apply

    state.update = update
    return counter


def scaling_variables(optimizer: Any) -> list[Any]:
    """Return the variables of an optimizer's dynamic loss scaling, with our counter of skipped steps; else none."""
    state = getattr(optimizer, "_loss_scale", None)
    if state is None or not hasattr(state, "_current_loss_scale"):
        return []
    counter = _SKIPS.get(state)
    return [state._counter, state._current_loss_scale, *([] if counter is None else [counter])]


ADAPTER = LegacyAdapter(tf_keras)
