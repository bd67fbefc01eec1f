"""LossScaleOptimizer: dynamic loss scaling of Keras 3 with bounds inside the traced step."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_precision.core.errors import InputError

__all__ = ["LossScaleOptimizer", "check_bounds"]


def check_bounds(initial_scale: float, min_scale: float, max_scale: float) -> None:
    """Raise unless ``0 < min_scale <= initial_scale <= max_scale`` and all are finite."""
    # The scale is a float32: 2**127 is its largest power of two.
    if not 0 < min_scale <= initial_scale <= max_scale <= 2.0**127:
        raise InputError(
            "Expected 0 < min_scale <= initial_scale <= max_scale <= 2**127. "
            f"Received: min_scale={min_scale}, initial_scale={initial_scale}, max_scale={max_scale}."
        )


@keras.saving.register_keras_serializable("keras_precision")
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """Keras's dynamic loss scaling, with a floor and a ceiling.

    Keras 3 halves the scale after every overflow without a floor: after some 140 overflows in a row it
    is 0, and one clean batch then turns every weight into NaN (0 / 0). Nor has it a ceiling: without
    overflows, the scale doubles until it is infinite, and every further step is skipped.
    Here the scale stays between the bounds. They are part of the traced step, and so they also apply under
    ``jit_compile`` and ``steps_per_execution``, where a callback would run too late.

    It is a drop-in for ``keras.optimizers.LossScaleOptimizer``, on TensorFlow, JAX and PyTorch: in
    ``compile``, in custom loops (``scale_loss`` and ``apply``), in saved models.

    Args:
        inner_optimizer: The optimizer that applies the unscaled gradients.
        initial_scale: The scale to start with.
        dynamic_growth_steps: Steps without overflow after which the scale doubles.
        min_scale: The floor.
        max_scale: The ceiling.
        name: Name of the optimizer.
        **kwargs: As for Keras's own.

    Attributes:
        overflows_at_floor: Variable that counts the steps skipped in a row while the scale was at
            its floor: where it grows, the cause is not the loss scale.

    Raises:
        InputError: The bounds are out of order, or not finite.

    Example:
        >>> import keras
        >>> optimizer = LossScaleOptimizer(keras.optimizers.Adam(1e-3), min_scale=1.0)
        >>> model.compile(optimizer, "sparse_categorical_crossentropy")
    """

    def __init__(
        self,
        inner_optimizer: Any,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        *,
        min_scale: float = 1.0,
        max_scale: float = 2.0**24,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_bounds(initial_scale, min_scale, max_scale)
        super().__init__(
            inner_optimizer, initial_scale=initial_scale, dynamic_growth_steps=dynamic_growth_steps, name=name, **kwargs
        )
        self.min_scale = float(min_scale)
        self.max_scale = float(max_scale)

    def build(self, var_list: Sequence[Any]) -> None:
        """Create the variables: those of Keras, and the count of overflows at the floor."""
        super().build(var_list)
        self.overflows_at_floor = self.add_variable(
            shape=(), dtype="int", initializer="zeros", aggregation="none", name="overflows_at_floor"
        )

    # Keras has no public hook for the new scale. These four methods compute it, inside the traced step, for TensorFlow
    # and PyTorch (stateful) and JAX (stateless):
    # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/optimizers/loss_scale_optimizer.py
    def _stateful_handle_finite_grads(self, grads: Any, trainable_variables: Any) -> None:
        super()._stateful_handle_finite_grads(grads, trainable_variables)
        self.dynamic_scale.assign(ops.minimum(self.dynamic_scale, self.max_scale))
        self.overflows_at_floor.assign(0)

    def _stateful_handle_non_finite_grads(self) -> None:
        at_floor = ops.less_equal(self.dynamic_scale, self.min_scale)
        self.overflows_at_floor.assign(ops.where(at_floor, self.overflows_at_floor + 1, 0))
        self.step_counter.assign(0)
        self.dynamic_scale.assign(ops.maximum(ops.multiply(self.dynamic_scale, 0.5), self.min_scale))

    def _stateless_handle_finite_grads(
        self, optimizer_variables: Any, grads: Any, trainable_variables: Any
    ) -> tuple[Any, list[Any]]:
        trained, state = super()._stateless_handle_finite_grads(optimizer_variables, grads, trainable_variables)
        bounded = {
            id(self.dynamic_scale): lambda value: ops.minimum(value, self.max_scale),
            id(self.overflows_at_floor): ops.zeros_like,
        }
        same = ops.convert_to_tensor
        return trained, [bounded.get(id(v), same)(value) for v, value in zip(self.variables, state, strict=True)]

    def _stateless_handle_non_finite_grads(
        self, optimizer_variables: Any, trainable_variables: Any
    ) -> tuple[Any, list[Any]]:
        mapping = list(zip(self.variables, optimizer_variables, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self._stateful_handle_non_finite_grads()
        return trainable_variables, [scope.get_current_value(variable) for variable in self.variables]

    def get_config(self) -> dict[str, Any]:
        """Return the configuration of an equal optimizer."""
        return {**super().get_config(), "min_scale": self.min_scale, "max_scale": self.max_scale}
