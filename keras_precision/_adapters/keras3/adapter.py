"""Keras 3, on TensorFlow, JAX or PyTorch."""

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras

from keras_precision._adapters.adapter import KerasAdapter, is_numbered, recompute_constants, snake_case
from keras_precision._adapters.backend import Compute, get_compute
from keras_precision._adapters.keras3.convertible_operations import convertible_operations, operation_name
from keras_precision._adapters.training.batch_loss import BatchLoss, listen_to_tracker
from keras_precision._adapters.training.data_wait import (
    DataWait,
    UnknownDataWait,
    sampled_pulls_in_steps,
    timed_pulls_before_steps,
    timed_pulls_in_steps,
)
from keras_precision._adapters.training.loss_scaling import LossScaling, NoLossScaling
from keras_precision._adapters.training.restarted_loss import restart_mean
from keras_precision.core.system.optional import require

__all__ = ["ADAPTER"]


class Keras3Adapter(KerasAdapter):
    """Keras 3."""

    functional_classes = (keras.Sequential, keras.src.models.functional.Functional)

    @functools.cached_property
    def compute(self) -> Compute:
        """The backend of this process; Keras 3 has only one."""
        return get_compute(keras.backend.backend())

    def children(self, model: Any) -> list[Any]:
        """Return ``model.layers`` without inputs, and without layers that only hold samples of them."""
        return [
            layer
            for layer in model.layers
            if not isinstance(layer, keras.layers.InputLayer) and not hasattr(layer, "stands_for_input")
        ]

    def auto_name(self, layer: Any) -> str | None:
        """Return the name without its number."""
        # As in https://github.com/keras-team/keras/blob/v3.15.1/keras/src/utils/naming.py (auto_name, to_snake_case).
        original = getattr(layer, "stands_for", layer)  # a wrapper that has the path of its layer
        stem = snake_case(type(original).__name__, "(.)([A-Z][a-z]+)")
        return stem if is_numbered(layer.name, stem) else None

    def input_names(self, model: Any) -> Sequence[Sequence[str]]:
        """Return the names of the symbolic inputs, and their keys."""
        # Model.inputs is flat; the structure that the model was built with is private:
        # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/ops/function.py
        structure = getattr(model, "_inputs_struct", None)
        names = [(tensor.name,) for tensor in model.inputs]
        if not isinstance(structure, dict):
            return names
        keys = [path[-1:] for path, _ in keras.tree.flatten_with_path(structure)]
        return [name + key for name, key in zip(names, keys, strict=True)]

    def packed(self, model: Any, inputs: Sequence[Any]) -> Any:
        """Pack the inputs into the structure of a functional model; a sequential one takes one input."""
        structure = getattr(model, "_inputs_struct", None)
        return inputs[0] if structure is None else keras.tree.pack_sequence_as(structure, list(inputs))

    def flat(self, structure: Any) -> list[Any]:
        """Flatten as Keras does."""
        return list(keras.tree.flatten(structure))

    def call(self, model: Any, inputs: Sequence[Any]) -> list[Any]:
        """Call the model on inputs in the structure that it was built with."""
        return self.flat(model(self.packed(model, inputs), training=False))

    def call_for_training(self, model: Any, inputs: Sequence[Any]) -> Any:
        """Call the model in a scope that discards its assignments."""
        with keras.StatelessScope():
            return model(self.packed(model, inputs), training=True)

    def without_changes(self, model: Any) -> AbstractContextManager[Any]:
        """Discard assignments."""
        scope: AbstractContextManager[Any] = keras.StatelessScope()
        return scope

    def tensorflow_variables(self, model: Any) -> list[Any]:
        """Return the variables inside those of Keras."""
        return [variable.value for variable in model.variables]

    def convertible_operations(self) -> AbstractContextManager[None]:
        """Compute operations of ``keras.ops`` by operators with kernels, for this thread."""
        return convertible_operations()

    def operation_name(self, graph_operation: Any) -> str | None:
        """Return the function of ``keras.ops`` that added an operation."""
        return operation_name(graph_operation)

    def policy_name(self, layer: Any) -> str:
        """Return the name of a layer's policy, also where it comes from a DTypePolicyMap."""
        policy = layer.dtype_policy
        if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
            policy = (
                policy[layer.path] if layer.path else policy.default_policy
            )  # a layer has no path until it is built
        return str(policy.name)

    def loss_scaling(self, model: Any, optimizer: Any = None) -> LossScaling:
        """Return the reader for the optimizer, by default the model's own."""
        standard_step = optimizer is None and not self.has_own_train_step(model)
        used = optimizer or getattr(model, "optimizer", None)
        if isinstance(used, keras.optimizers.LossScaleOptimizer):
            return _Keras3LossScaling(model, optimizer, standard_step=standard_step)
        fixed = getattr(used, "loss_scale_factor", None)
        if standard_step or used is None or fixed is not None:
            return NoLossScaling(certain=standard_step, scale=fixed)
        return _Keras3Updates(model, used)

    def bound_loss_scale(self, model: Any, min_scale: float, max_scale: float) -> None:
        """Replace Keras's loss scaling by a bounded one with its state, around the same inner optimizer."""
        from keras_precision._adapters.training.loss_scale_optimizer import LossScaleOptimizer

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
        model.make_train_function(force=True)  # an existing step was traced with the old optimizer

    def set_policy(self, layer: Any, precision: str) -> None:
        """Set the policy, which variables follow by autocasting."""
        layer.dtype_policy = precision
        recompute_constants(self, layer)

    def is_loss_scaling(self, optimizer: Any) -> bool:
        """Compare with Keras's class, which ours inherits from."""
        return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)

    def scaled(self, optimizer: Any, **options: Any) -> Any:
        """Wrap it in our own optimizer, which has a floor and a ceiling."""
        from keras_precision._adapters.training.loss_scale_optimizer import LossScaleOptimizer

        return LossScaleOptimizer(optimizer, **options)

    def data_wait(self, model: Any) -> AbstractContextManager[DataWait]:
        """Time the pulls where Python makes them; on TensorFlow, where the compiled step does, a sample of them."""
        if self.compute.name == "jax":
            return timed_pulls_in_steps(model)
        if self.compute.name == "torch":
            # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/torch/trainer.py
            from keras.src.backend.torch import trainer

            return timed_pulls_before_steps(trainer.TorchEpochIterator)
        return self._sampled_wait(model)

    def _sampled_wait(self, model: Any) -> AbstractContextManager[DataWait]:
        # A model class with its own make_train_function may not accept batches that Python has pulled:
        # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/tensorflow/trainer.py
        from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

        if (
            model.steps_per_execution != 1
            or type(model).make_train_function is not TensorFlowTrainer.make_train_function
        ):
            return nullcontext(UnknownDataWait("the compiled step pulls from the dataset by itself"))
        tensorflow = require("tensorflow", extra="tensorflow")
        return sampled_pulls_in_steps(model, tensorflow.data.Iterator)

    def batch_loss(self, model: Any) -> AbstractContextManager[BatchLoss]:
        """Read the loss in an eager training step; in a compiled one, restart its mean once that is NaN."""
        # The metric of the loss has no public name: https://github.com/keras-team/keras/blob/v3.15.1/keras/src/trainers/trainer.py
        tracker = getattr(model, "_loss_tracker", None)
        if tracker is None:
            return nullcontext(BatchLoss())
        if self.compute.name == "torch":
            return nullcontext(BatchLoss()) if model.jit_compile else listen_to_tracker(tracker)
        if self.has_own_train_step(model) or model.steps_per_execution != 1:
            return nullcontext(BatchLoss())
        on_jax = self.compute.name == "jax"
        if not on_jax and model.distribute_strategy.num_replicas_in_sync > 1:
            return nullcontext(BatchLoss())
        return restart_mean(model, tracker, in_state=on_jax)

    def has_own_train_step(self, model: Any) -> bool:
        """Compare with the training steps of Keras."""
        return type(model).train_step not in _TRAIN_STEPS

    def samples_seen(self, model: Any) -> int | None:
        """Return the weight of the mean loss, in which Keras weights batches by their size."""
        tracker = getattr(model, "_loss_tracker", None)
        count = None if tracker is None else round(float(keras.ops.convert_to_numpy(tracker.count)))
        return count or None


class _Keras3Updates(LossScaling):
    """An optimizer without loss scaling, in a custom training step."""

    def __init__(self, model: Any, optimizer: Any) -> None:
        self._model, self._counter = model, optimizer
        self._before = 0
        self._places: dict[int, int] = {}  # id of a variable to its index in the optimizer's state

    @property
    def source(self) -> str:
        return "updates of the optimizer against batches: 0 if there are as many, else unknown"

    def begin(self) -> None:
        self._before = self._iterations()

    def scale(self) -> float | None:
        return None

    def skipped(self, batches: int | None) -> int | None:
        return 0 if batches == self._iterations() - self._before else None

    def _iterations(self) -> int:
        """Return the count of updates."""
        # The public one is divided by gradient_accumulation_steps:
        # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/optimizers/base_optimizer.py
        return int(self._read(self._counter._iterations))

    def _read(self, variable: Any) -> Any:
        """Return the current value of a variable of the optimizer."""
        # On JAX, the state of a running epoch is outside the model, and the public jax_state_sync() would copy back all
        # variables, not this one: https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/jax/trainer.py
        state = getattr(self._model, "_jax_state", None)
        if not state or self._model._jax_state_synced or not state.get("optimizer_variables"):
            return keras.ops.convert_to_numpy(variable)
        place = self._places.get(id(variable))
        if place is None:
            variables = self._model.optimizer.variables
            self._places = {id(item): index for index, item in enumerate(variables)}
            place = self._places[id(variable)]
        return keras.ops.convert_to_numpy(state["optimizer_variables"][place])


class _Keras3LossScaling(_Keras3Updates):
    """Counts skipped steps by the counter of the inner optimizer.

    The LossScaleOptimizer does not call the inner optimizer when a gradient is not finite, so that
    batches = increments of ``inner._iterations`` + skipped steps, if every batch makes one update.
    A custom training step may make two, or none: there, the count must agree with the
    scale, which every skipped step halves.
    """

    def __init__(self, model: Any, optimizer: Any, *, standard_step: bool) -> None:
        super().__init__(model, (optimizer or model.optimizer).inner_optimizer)
        self._custom_optimizer, self._standard_step = optimizer, standard_step
        self._scale_before = 0.0

    @property
    def source(self) -> str:
        how = "batches minus the inner optimizer's iterations"
        return how if self._standard_step else f"{how}, where that agrees with the scale; unknown where it does not"

    @property
    def _optimizer(self) -> Any:
        return self._custom_optimizer or self._model.optimizer  # which a guard may have replaced

    def begin(self) -> None:
        super().begin()
        self._scale_before = self.scale() or float(self._optimizer.initial_scale)

    def scale(self) -> float | None:
        # The variable exists once the optimizer is built, on TensorFlow in the first step.
        scale = getattr(self._optimizer, "dynamic_scale", None)
        return None if scale is None else float(self._read(scale))

    def skipped(self, batches: int | None) -> int | None:
        if batches is None:
            return None
        skipped = batches - (self._iterations() - self._before)
        plausible = 0 <= skipped <= batches
        return skipped if plausible and (self._standard_step or self._agrees(batches, skipped)) else None

    def _agrees(self, batches: int, skipped: int) -> bool:
        """Tell whether the scale was halved once per skipped step."""
        if batches >= self._optimizer.dynamic_growth_steps:
            return False  # it may have doubled in between
        expected = self._scale_before * 0.5**skipped
        return self.scale() == max(expected, getattr(self._optimizer, "min_scale", 0.0))


_TRAIN_STEPS = (keras.Model.train_step, keras.Sequential.train_step)
ADAPTER = Keras3Adapter(keras)
