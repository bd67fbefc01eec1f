"""apply_plan: a model in the precisions of a plan, which are verified on the result."""

from collections.abc import Iterator, Mapping
from typing import Any

from keras_precision._adapters import KerasAdapter
from keras_precision._adapters.layer_paths import paths_of
from keras_precision._adapters.layer_state import copy_state
from keras_precision._adapters.model_view import ModelView
from keras_precision._adapters.rebuild import compile_like, forget_compiled, is_compiled, rebuilt, rebuilt_with
from keras_precision.core.errors import ModelError, PlanNotHonouredError
from keras_precision.core.plan import PrecisionPlan, training_plan

__all__ = ["apply_plan"]


def apply_plan(model: Any, plan: str | PrecisionPlan, in_place: bool = False) -> Any:
    """Return a model whose layers compute in the precisions of a plan.

    Layers inside MultiHeadAttention, Bidirectional, TimeDistributed and other composite layers get the precision
    of the outer layer. A compiled model remains compiled, with the same loss, metrics and optimizer settings.
    If a layer computes in float16, the optimizer is wrapped in dynamic loss scaling, which Keras itself adds only
    if the model's own policy is ``mixed_float16``; if no layer does, loss scaling is removed.

    Args:
        model: A Keras 3 or tf_keras model.
        plan: A training plan, which may name layers of ``kp.layer_paths(model)``, or the policy of all layers.
        in_place: False leaves the model unchanged, and returns a copy with the same weights, rebuilt from its
            configuration as on loading a file. True changes the model itself, preserves the state of the optimizer,
            and discards compiled functions; it is the only way for a subclassed model. Whether layers inside custom
            layers retain their precision in a saved file is then not verified.

    Returns:
        The model with the precisions of the plan.

    Raises:
        PlanKindError: The plan is a deployment plan.
        UnknownPrecisionError: It is neither a plan nor the name of a policy.
        UnknownLayerError: The plan names a layer that the model does not have.
        ModelError: It is not a Keras model, it is quantized, or it cannot be rebuilt from its configuration.
        PlanNotHonouredError: A layer does not accept the precision, or would lose it when saved and loaded.

    Example:
        >>> import keras
        >>> from keras_precision._adapters.layer_paths import plan_of
        >>> plan = PrecisionPlan.training("mixed_bfloat16", layers={"dense_1": "float32"})
        >>> plan_of(apply_plan(model, plan)) == plan
        True
    """
    view = ModelView.of(model)
    adapter = view.adapter
    plan = training_plan(plan)
    policies = plan.resolve(view.layers)
    _refuse_quantized(adapter, view.layers)
    if in_place:
        _set_policies(view, plan, policies)
        forget_compiled(model)
        _set_loss_scaling(adapter, model, enabled=_needs_loss_scaling(plan, policies))
        _verify(adapter, view.layers, policies, "does not accept it")
        return model
    draft = rebuilt(adapter, model)
    _set_policies(ModelView(draft, adapter), plan, policies)
    # As saving and loading would: a policy that the configuration lacks is lost.
    planned = rebuilt_with(adapter, draft, lambda config: config)
    _verify(adapter, paths_of(adapter, planned), policies, "loses it when the model is saved and loaded")
    copy_state(adapter, model, planned)
    if is_compiled(model):
        compile_like(adapter, planned, model, scale_loss=_needs_loss_scaling(plan, policies))
    return planned


def _needs_loss_scaling(plan: PrecisionPlan, policies: Mapping[str, str]) -> bool:
    # compile() looks at the policy of the model only, not at those of its layers (auto_scale_loss):
    # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/trainers/trainer.py
    return "mixed_float16" in (policies.values() or (plan.default,))


def _refuse_quantized(adapter: KerasAdapter, layers: Mapping[str, Any]) -> None:
    for path, layer in layers.items():
        for inner in adapter.walk(layer):
            if "_from_" in adapter.policy_name(inner):  # such as int8_from_float32
                raise ModelError(
                    f"Expected a model in float. Received: '{path}' with the policy '{adapter.policy_name(inner)}'. "
                    "Apply the plan first, and quantize what it returns."
                )


def _members(adapter: KerasAdapter, layer: Any) -> Iterator[Any]:
    """Yield a layer and its inner layers, except lookups of strings and integers, which have a type of their own."""
    return (inner for inner in adapter.walk(layer) if not adapter.is_lookup(inner))


def _set_policies(view: ModelView, plan: PrecisionPlan, policies: Mapping[str, str]) -> None:
    adapter = view.adapter
    for inner in adapter.walk(view.model):
        if adapter.is_model(inner):
            adapter.set_policy(inner, plan.default)  # Its layers get their own policies below.
    for path, layer in view.layers.items():
        for inner in _members(adapter, layer):
            adapter.set_policy(inner, policies[path])


def _set_loss_scaling(adapter: KerasAdapter, model: Any, *, enabled: bool) -> None:
    """Wrap the optimizer of a compiled model in loss scaling, or unwrap it, preserving its state."""
    optimizer = getattr(model, "optimizer", None)
    if (
        optimizer is None
        or adapter.is_loss_scaling(optimizer) == enabled
        or getattr(optimizer, "loss_scale_factor", None)
    ):
        return
    model.optimizer = adapter.scaled(optimizer) if enabled else adapter.unscaled(optimizer)
    if enabled and getattr(optimizer, "built", False):
        model.optimizer.build(model.trainable_variables)
    # Saving serializes the optimizer in _compile_config, which compile() sets, and not model.optimizer. If the attribute
    # changes, write the optimizer to what get_compile_config() reads (in tf_keras: tf_keras/src/engine/training.py).
    # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/trainers/trainer.py
    model._compile_config.config["optimizer"] = model.optimizer


def _verify(adapter: KerasAdapter, layers: Mapping[str, Any], policies: Mapping[str, str], failure: str) -> None:
    for path, layer in layers.items():
        for inner in _members(adapter, layer):
            realised = adapter.policy_name(inner)
            if realised != policies[path]:
                name = path if inner is layer else f"{path}/{inner.name}"
                raise PlanNotHonouredError(
                    f"Expected '{path}' in {policies[path]}. Received: '{name}' in {realised}: it {failure}. Let its "
                    "class pass dtype=self.dtype_policy to the layers that it creates, or build it in that precision."
                )
