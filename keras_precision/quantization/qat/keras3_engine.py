"""The engine of Keras 3: a copy of the model whose layers compute like their integer kernels."""

from collections.abc import Mapping
from typing import Any

from keras_precision._adapters import KerasAdapter, adapter_of
from keras_precision._adapters.model_view import ModelView
from keras_precision._adapters.rebuild import compile_like, is_compiled
from keras_precision.core.errors import ModelError, PlanError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.quantization.calibration import Calibration, calibrate_view
from keras_precision.quantization.float_model import FloatFile, float_file
from keras_precision.quantization.qat.followed import unfollowed
from keras_precision.quantization.qat.layers.consumers import LayerGraph
from keras_precision.quantization.qat.layers.model_surgery import insert_sample_buffers, wrap_layers, wrappers
from keras_precision.quantization.qat.layers.rule_lookup import rule_of
from keras_precision.quantization.qat.layers.sample_buffer import sample_buffers
from keras_precision.quantization.qat.placement import Placement, placements
from keras_precision.quantization.qat.schedule import Settings
from keras_precision.quantization.qat.typical_weights import with_typical_weights

__all__ = ["quantize_with_keras", "range_tensors"]

_PRECISIONS = ("int8", "int4", "float32")


def quantize_with_keras(model: Any, plan: PrecisionPlan, data: Any, settings: Settings) -> Any:
    """Return a copy of a functional or sequential model that trains as its integer file will compute.

    The data are samples or a calibration; None lets ranges start with the first batch. The copy is compiled where
    the model is. Raises ModelError for layers, and PlanError for plans, that cannot be trained for.
    """
    view = ModelView.of(model)
    adapter, layers = view.adapter, view.layers
    _check(adapter, layers, plan)
    calibration = data.expect_own_weights(model) if isinstance(data, Calibration) else None
    typical = with_typical_weights(view)
    if calibration is None and data is not None:
        calibration = calibrate_view(typical, data)
    has_file = calibration is not None and (typical is view or not isinstance(data, Calibration))
    source = calibration.float_file if calibration is not None and has_file else float_file(typical)
    layer_placements = placements(typical.model, source, plan)
    if settings.freeze_norm_after is not None:
        for path, layer in layers.items():
            if _is_norm(layer):
                layer_placements.setdefault(path, Placement(plan.precision_of(path), folded=True))
    graph = LayerGraph(adapter, model)
    options = {
        path: {**_options(layers[path], placement, graph.uses(layers[path])), **settings.options()}
        for path, placement in layer_placements.items()
        if _needs_wrapper(layers[path], placement, settings)
    }
    if all(entry["precision"] == "float32" for entry in options.values()):
        raise PlanError(
            "Expected a plan that quantizes something. Received: one that leaves every layer in float32. "
            "Give some layers int8 or int4."
        )
    aware = wrap_layers(adapter, model, options)
    _check_wrapped(aware, options)
    samples = list(calibration.held.values()) if calibration is not None else []
    is_fixed = all(None not in entry.shape for entry in view.inputs)  # a buffer of other samples would have no size
    if is_fixed and _has_unfollowed(aware, layer_placements, source, plan):
        aware = insert_sample_buffers(adapter, aware, follows_training=not samples)
        for buffer, values in zip(sample_buffers(aware), samples, strict=False):  # none without data
            buffer.start(values)
    if calibration is not None and (settings.ranges == "fixed" or not _has_untrained_norm(layers)):
        _start_ranges(aware, layer_placements, calibration, settings.calibration)
    if is_compiled(model):
        compile_like(adapter, aware, model, scale_loss=adapter.is_loss_scaling(model.optimizer))
    return aware


def range_tensors(model: Any, layer_placements: Mapping[str, Placement]) -> dict[str, dict[str, list[str]]]:
    """Return the tensors of the file for the ranges of a wrapped model: layer path, name of the range, tensors.

    A range has several tensors where the layer is called several times.
    """
    graph = LayerGraph(adapter_of(model), model)
    return {
        path: _tensors(list(wrapper.sites), layer_placements[path], graph.uses(wrapper))
        for path, wrapper in wrappers(model).items()
        if path in layer_placements
    }


def _has_unfollowed(
    model: Any, layer_placements: Mapping[str, Placement], source: FloatFile, plan: PrecisionPlan
) -> bool:
    """Return whether the file has an activation whose range no wrapper follows."""
    sites = range_tensors(model, layer_placements).values()
    tensors = [tensor for names in sites for tensors in names.values() for tensor in tensors]
    return bool(unfollowed(source, plan, dict.fromkeys(tensors, (0.0, 1.0))))


def _tensors(sites: list[str], placement: Placement, uses: int) -> dict[str, list[str]]:
    tensors: dict[str, list[str]] = {}
    if "input" in sites and placement.inputs:
        tensors["input"] = placement.inputs
    names = [name for name in sites if name != "input"]
    if names and len(placement.tensors) == uses * len(names):
        tensors |= {name: placement.tensors[number :: len(names)] for number, name in enumerate(names)}
    elif "output" in names and placement.result:
        # The kernels compute other activations than the rule knows; the last one is the output in any case.
        tensors["output"] = placement.result[-1:]
    return {name: [tensor for tensor in found if tensor not in placement.altered] for name, found in tensors.items()}


def _check(adapter: KerasAdapter, layers: Mapping[str, Any], plan: PrecisionPlan) -> None:
    precisions = plan.resolve(layers)
    for path, precision in precisions.items():
        if precision not in _PRECISIONS:
            raise PlanError(
                f"Expected layers in {', '.join(_PRECISIONS)}, which can be trained for. Received: '{path}' in {precision}."
            )
    if any("_from_" in adapter.policy_name(layer) for layer in layers.values()):
        raise ModelError("Expected a model in float. Received: one that keras.Model.quantize has quantized.")
    for path, layer in layers.items():
        if precisions[path] != "float32":
            rule_of(layer)


def _check_wrapped(model: Any, options: Mapping[str, Any]) -> None:
    """Raise ModelError where layers were not wrapped, since code of a subclassed model builds them."""
    missing = sorted(options.keys() - wrappers(model).keys())
    if missing:
        raise ModelError(
            f"Expected layers of functional and sequential models. Received: {', '.join(map(repr, missing))}, inside a "
            "subclassed model, whose layers cannot be replaced from outside. Build that part as a functional model, or "
            "put kp.QuantizeWrapper around its layers in the code of the class."
        )


def _options(layer: Any, placement: Placement, uses: int) -> dict[str, Any]:
    return {
        "precision": placement.precision,
        # With several uses, the layer has other inputs than the model's.
        "quantize_input": bool(placement.inputs) and uses == 1 and not placement.scaled,
        "quantize_output": placement.output,
        "folded": placement.folded and (placement.precision == "float32" or not rule_of(layer).weights),
    }


def _needs_wrapper(layer: Any, placement: Placement, settings: Settings) -> bool:
    """Return whether a wrapper around a layer has anything to do."""
    if settings.freeze_norm_after is not None and _is_norm(layer):
        return True
    rule = rule_of(layer) if placement.precision != "float32" else None
    if rule is None:
        return bool(placement.tensors)
    fixed = placement.output and rule.output_of(layer) in ("unit", "signed_unit")
    # A layer with weights and no wrapper would count as one that the plan leaves in float.
    folded = placement.folded and layer.weights and not rule.folds
    return bool(rule.weights or placement.tensors or placement.rounds or placement.inputs or fixed or folded)


def _is_norm(layer: Any) -> bool:
    return isinstance(layer, adapter_of(layer).keras.layers.BatchNormalization)


def _has_untrained_norm(layers: Mapping[str, Any]) -> bool:
    """Return whether a batch normalization still has its initial statistics, with which outputs differ from training.

    In training it normalizes by the statistics of the batch. Ranges that were calibrated with the initial ones
    would clip these outputs, and every normalization of a deep net then multiplies the gradients until they overflow.
    """
    norms = [layer for layer in layers.values() if _is_norm(layer)]
    return any(_equals(norm.moving_mean, 0.0) and _equals(norm.moving_variance, 1.0) for norm in norms)


def _equals(weight: Any, value: float) -> bool:
    return bool((weight.numpy() == value).all())


def _start_ranges(model: Any, layer_placements: Mapping[str, Placement], calibration: Calibration, method: str) -> None:
    """Initialize the ranges of a model from the calibration of the float model."""
    ranges = calibration.ranges(method)
    layers = wrappers(model)
    for path, sites in range_tensors(model, layer_placements).items():
        for name, tensors in sites.items():
            known = [ranges[tensor] for tensor in tensors if tensor in ranges]
            if known:
                layers[path].sites[name].start(min(low for low, _ in known), max(high for _, high in known))
