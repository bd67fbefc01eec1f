"""apply_plan: a model in the precisions of a plan, read back and verified."""

from collections.abc import Iterator, Mapping
from typing import Any

from keras_precision._adapters import KerasAdapter, adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision._adapters.rebuild import compile_like, forget_compiled, is_compiled, rebuilt
from keras_precision.core.errors import ModelError, PlanNotHonouredError
from keras_precision.core.plan import PrecisionPlan

__all__ = ["apply_plan"]


def apply_plan(model: Any, plan: PrecisionPlan, in_place: bool = False) -> Any:
    """Return a model whose layers compute in the precisions of a plan.

    Layers inside MultiHeadAttention, Bidirectional, TimeDistributed and other layers made of layers get the precision
    of the outer one. A compiled model gives a compiled one, with the same loss, metrics and settings of the optimizer;
    where a layer computes in float16, the optimizer is wrapped in dynamic loss scaling, which Keras by itself adds only
    where the model's own policy is ``mixed_float16``; where none does, that is taken off.

    Args:
        model: A Keras 3 or tf_keras model.
        plan: A training plan; it may name layers of ``kp.layer_paths(model)``.
        in_place: False leaves the model as it is, and returns a copy with the same weights, made from its
            configuration as loading a file makes it. True changes the model itself, keeps the state of the optimizer,
            and forgets compiled functions; a subclassed model can be changed only so. What a saved file will hold
            of layers within a user's own layers is then not verified.

    Returns:
        The model in the plan.

    Raises:
        PlanKindError: It is a deployment plan.
        UnknownLayerError: The plan names a layer that the model does not have.
        ModelError: It is no Keras model, it is quantized, or it cannot be made from its configuration.
        PlanNotHonouredError: A layer does not take the precision, or would lose it when saved and loaded.

    Example:
        >>> import keras
        >>> from keras_precision._adapters.layer_paths import plan_of
        >>> plan = PrecisionPlan.training("mixed_bfloat16", layers={"dense_1": "float32"})
        >>> plan_of(apply_plan(model, plan)) == plan
        True
    """
    adapter, layers = adapter_of(model), layer_paths(model)
    wanted = plan.expect("training").resolve(layers)
    _refuse_quantized(adapter, layers)
    if in_place:
        _set_policies(adapter, model, plan, wanted)
        forget_compiled(model)
        _scale_loss(adapter, model, due=_is_due(plan, wanted))
        _verify(adapter, layer_paths(model), wanted, "does not take it")
        return model
    draft = rebuilt(adapter, model)
    _set_policies(adapter, draft, plan, wanted)
    planned = rebuilt(adapter, draft)
    _verify(adapter, layer_paths(planned), wanted, "loses it when the model is saved and loaded")
    if model.built:
        planned.set_weights(model.get_weights())
    if is_compiled(model):
        compile_like(adapter, planned, model, scale_loss=_is_due(plan, wanted))
    return planned


def _is_due(plan: PrecisionPlan, wanted: Mapping[str, str]) -> bool:
    return "mixed_float16" in (wanted.values() or (plan.default,))


def _refuse_quantized(adapter: KerasAdapter, layers: Mapping[str, Any]) -> None:
    for path, layer in layers.items():
        for inner in adapter.walk(layer):
            if "_from_" in adapter.policy_name(inner):  # such as int8_from_float32
                raise ModelError(
                    f"Expected a model in float. Received: '{path}' with the policy '{adapter.policy_name(inner)}'. "
                    "Apply the plan first, and quantize what it returns."
                )


def _members(adapter: KerasAdapter, layer: Any) -> Iterator[Any]:
    """A layer and those inside it, without the ones that compute no floats: lookups of strings and integers."""
    return (inner for inner in adapter.walk(layer) if "float" in adapter.policy_name(inner))


def _set_policies(adapter: KerasAdapter, model: Any, plan: PrecisionPlan, wanted: Mapping[str, str]) -> None:
    for inner in adapter.walk(model):
        if adapter.is_model(inner):
            adapter.set_policy(inner, plan.default)  # the layers of a model come after it, and have their own
    for path, layer in layer_paths(model).items():
        for inner in _members(adapter, layer):
            adapter.set_policy(inner, wanted[path])


def _scale_loss(adapter: KerasAdapter, model: Any, *, due: bool) -> None:
    """Put loss scaling around the optimizer of a compiled model, or take it off, keeping its state."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or adapter.is_loss_scaling(optimizer) == due or getattr(optimizer, "loss_scale_factor", None):
        return
    model.optimizer = adapter.scaled(optimizer) if due else optimizer.inner_optimizer
    if due and getattr(optimizer, "built", False):
        model.optimizer.build(model.trainable_variables)
    model._compile_config.config["optimizer"] = model.optimizer  # what is saved


def _verify(adapter: KerasAdapter, layers: Mapping[str, Any], wanted: Mapping[str, str], what: str) -> None:
    for path, layer in layers.items():
        for inner in _members(adapter, layer):
            realised = adapter.policy_name(inner)
            if realised != wanted[path]:
                name = path if inner is layer else f"{path}/{inner.name}"
                raise PlanNotHonouredError(
                    f"Expected '{path}' in {wanted[path]}. Received: '{name}' in {realised}: it {what}. Let its class "
                    "pass dtype=self.dtype_policy to the layers that it makes, or build it in that precision."
                )
