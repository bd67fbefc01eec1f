"""The engine of Keras 3: a copy of the model whose layers compute as their integer kernels will."""

from collections.abc import Mapping
from typing import Any

from keras_precision._adapters import KerasAdapter, adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision._adapters.rebuild import compile_like, is_compiled
from keras_precision.core.errors import ModelError, PlanError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.quantization.calibration import Calibration, calibrate
from keras_precision.quantization.float_model import float_file
from keras_precision.quantization.qat.layers.consumers import Graph
from keras_precision.quantization.qat.layers.model_surgery import wrapped, wrappers
from keras_precision.quantization.qat.layers.rule_lookup import rule_of
from keras_precision.quantization.qat.placement import Placement, placements
from keras_precision.quantization.qat.schedule import Settings

__all__ = ["quantized_natively", "tensors_of"]

_KNOWN = ("int8", "int4", "float32")


def quantized_natively(model: Any, plan: PrecisionPlan, data: Any, settings: Settings) -> Any:
    """Return a copy of a model that trains as its integer file will compute.

    Args:
        model: A built functional or sequential model of Keras 3.
        plan: A deployment plan.
        data: Representative data, or a calibration; None where ranges start with the first batch.
        settings: The rest.

    Returns:
        The copy, compiled where the model is.

    Raises:
        ModelError: A layer has no rule, or the model is quantized, or cannot be made anew.
        PlanError: Nothing is left to quantize, or a format cannot be trained for.
    """
    adapter = adapter_of(model)
    layers = layer_paths(model)
    _check(adapter, layers, plan)
    calibration = data.expect_own_weights(model) if isinstance(data, Calibration) else None
    if calibration is None and data is not None:
        calibration = calibrate(model, data)
    source = calibration.float_file if calibration is not None else float_file(model)
    found = placements(model, source, plan)
    if settings.freeze_norm_after is not None:
        for path, layer in layers.items():
            if _is_norm(layer):
                found.setdefault(path, Placement(plan.precision_of(path), folded=True))
    graph = Graph(adapter, model)
    options = {
        path: {**_options(layers[path], place, graph.uses(layers[path])), **settings.options()}
        for path, place in found.items()
        if _counts(layers[path], place, settings)
    }
    if all(each["precision"] == "float32" for each in options.values()):
        raise PlanError(
            "Expected a plan that quantizes something. Received: one that leaves every layer in float32. "
            "Give some layers int8 or int4."
        )
    made = wrapped(adapter, model, options)
    _check_wrapped(made, options)
    if calibration is not None and (settings.ranges == "fixed" or not _is_unsettled(layers)):
        _start(made, found, calibration, settings.calibration)
    if is_compiled(model):
        compile_like(adapter, made, model, scale_loss=adapter.is_loss_scaling(model.optimizer))
    return made


def tensors_of(model: Any, found: Mapping[str, Placement]) -> dict[str, dict[str, list[str]]]:
    """Return which tensors of the file each range of a model belongs to.

    Args:
        model: A model with wrapped layers.
        found: How its layers are quantized in the file.

    Returns:
        Layer path to the name of a range to tensors: several where the layer is called several times.
    """
    graph = Graph(adapter_of(model), model)
    return {
        path: _tensors(list(wrapper.sites), found[path], graph.uses(wrapper))
        for path, wrapper in wrappers(model).items()
        if path in found
    }


def _tensors(sites: list[str], place: Placement, uses: int) -> dict[str, list[str]]:
    tensors: dict[str, list[str]] = {}
    if "input" in sites and place.input is not None:
        tensors["input"] = [place.input]
    names = [name for name in sites if name != "input"]
    if names and len(place.tensors) == uses * len(names):
        tensors |= {name: place.tensors[number :: len(names)] for number, name in enumerate(names)}
    elif "output" in names and place.tensors:
        # The kernels take other steps than the rule knows; the last of them is the output all the same.
        tensors["output"] = place.tensors[-1:]
    return tensors


def _check(adapter: KerasAdapter, layers: Mapping[str, Any], plan: PrecisionPlan) -> None:
    wanted = plan.resolve(layers)
    for path, precision in wanted.items():
        if precision not in _KNOWN:
            raise PlanError(
                f"Expected layers in {', '.join(_KNOWN)}, which can be trained for. Received: '{path}' in {precision}."
            )
    if any("_from_" in adapter.policy_name(layer) for layer in layers.values()):
        raise ModelError("Expected a model in float. Received: one that keras.Model.quantize has quantized.")
    for path, layer in layers.items():
        if wanted[path] != "float32":
            rule_of(layer)


def _check_wrapped(model: Any, options: Mapping[str, Any]) -> None:
    """Raise where layers stayed in float: those inside a subclassed model are made by its own code."""
    missing = sorted(options.keys() - wrappers(model).keys())
    if missing:
        raise ModelError(
            f"Expected layers of functional and sequential models. Received: {', '.join(map(repr, missing))}, inside a "
            "subclassed model, whose layers cannot be replaced from outside. Build that part as a functional model, or "
            "put kp.QuantizeWrapper around its layers where the class makes them."
        )


def _options(layer: Any, place: Placement, uses: int) -> dict[str, Any]:
    return {
        "precision": place.precision,
        "quantize_input": place.input is not None and uses == 1,  # else it is not the model's input alone
        "quantize_output": place.output,
        "folded": place.folded and (place.precision == "float32" or not rule_of(layer).weights),
    }


def _counts(layer: Any, place: Placement, settings: Settings) -> bool:
    """Whether a wrapper around a layer would do anything."""
    if settings.freeze_norm_after is not None and _is_norm(layer):
        return True
    rule = rule_of(layer) if place.precision != "float32" else None
    if rule is None:
        return bool(place.tensors)
    fixed = place.output and rule.output_of(layer) in ("unit", "signed_unit")
    taken_in = place.folded and layer.weights and not rule.folds  # else it would pass for one that was left in float
    return bool(rule.weights or place.tensors or place.rounds or place.input or fixed or taken_in)


def _is_norm(layer: Any) -> bool:
    return isinstance(layer, adapter_of(layer).keras.layers.BatchNormalization)


def _is_unsettled(layers: Mapping[str, Any]) -> bool:
    """Whether a batch normalization has its first statistics still, with which a model puts out other values.

    In training it normalizes by each batch's own, and clipped to the ranges of those other values every
    normalization of a deep net multiplies the gradients, until they overflow.
    """
    norms = [layer for layer in layers.values() if _is_norm(layer)]
    return any(_holds(norm.moving_mean, 0.0) and _holds(norm.moving_variance, 1.0) for norm in norms)


def _holds(weight: Any, value: float) -> bool:
    return bool((weight.numpy() == value).all())


def _start(model: Any, found: Mapping[str, Placement], calibration: Calibration, method: str) -> None:
    """Let each range start where the values of the float model lie."""
    ranges = calibration.ranges(method)
    made = wrappers(model)
    for path, sites in tensors_of(model, found).items():
        for name, tensors in sites.items():
            known = [ranges[tensor] for tensor in tensors if tensor in ranges]
            if known:
                made[path].sites[name].start(min(low for low, _ in known), max(high for _, high in known))
