"""The parts of a quantization-aware model that an export needs: its plan, its ranges, and the plain model."""

from collections.abc import Iterator, Mapping
from typing import Any

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision._adapters.model_view import ModelView
from keras_precision.core.errors import DataError, PlanError
from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.plan import PrecisionPlan
from keras_precision.quantization.calibration import calibrate
from keras_precision.quantization.float_model import float_file
from keras_precision.quantization.qat.keras3_engine import range_tensors
from keras_precision.quantization.qat.layers.model_surgery import unwrap_layers, wrappers
from keras_precision.quantization.qat.layers.rule_lookup import known_rule_of
from keras_precision.quantization.qat.moved_bias import restore_biases
from keras_precision.quantization.qat.placement import INPUT_SCALE, SAME_VALUES, placements
from keras_precision.quantization.qat.trained_ranges import TrainedRanges
from keras_precision.quantization.range_estimators import FIXED_RANGES
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["trained_parts", "trained_plan"]


def trained_plan(model: Any) -> PrecisionPlan:
    """Return the plan that a quantization-aware model was trained for; its default is the precision of most layers."""
    layers = layer_paths(model)
    weighted = {path: wrapper.precision for path, wrapper in wrappers(model).items() if wrapper.rule.weights}
    precisions = [*weighted.values()]
    default = "int4" if precisions.count("int4") > precisions.count("int8") else "int8"
    in_float = {path: "float32" for path, layer in layers.items() if _is_in_float(layer)}
    others = {path: precision for path, precision in weighted.items() if precision != default}
    return PrecisionPlan.deployment(default, layers={**others, **in_float})


def _is_in_float(layer: Any) -> bool:
    """Return whether a layer is wrapped for float, or has weights, no wrapper, and no kernel that it folds into."""
    precision = getattr(layer, "precision", None)
    return precision == "float32" or (precision is None and bool(layer.weights) and not _folds(layer))


def _folds(layer: Any) -> bool:
    """Return whether a kernel may fold the layer; one without a rule must have been left in float."""
    rule = known_rule_of(layer)
    return rule is not None and rule.folds


def trained_parts(model: Any, plan: PrecisionPlan | None, data: Any) -> tuple[Any, PrecisionPlan, TrainedRanges]:
    """Return the plain model, the plan, and the ranges of a quantization-aware model of Keras 3.

    The representative data serve activations without a trained range; DataError where these exist and data is None,
    and PlanError where the requested plan is another one than the model was trained for.
    """
    trained = trained_plan(model)
    paths = layer_paths(model)
    if plan is not None:
        requested = plan.resolve(paths)
        for path, wrapper in wrappers(model).items():
            if wrapper.rule.weights and requested[path] != wrapper.precision:
                raise PlanError(
                    f"Expected the plan that the model was trained for. Received: '{path}' in {requested[path]}, "
                    f"which was trained for {wrapper.precision}. Leave the plan out, or export kp.from_quantize_aware(model)."
                )
    plain, ranges = trained_ranges(model, trained, data)
    return plain, trained, ranges


def trained_ranges(model: Any, plan: PrecisionPlan, data: Any) -> tuple[Any, TrainedRanges]:
    """Return the plain model with the trained weights, and the ranges of its file; arguments as for ``as_trained``."""
    plain = unwrap_layers(adapter_of(model), model)
    calibration = None if data is None else calibrate(plain, data)
    source = calibration.float_file if calibration is not None else float_file(ModelView.of(plain))
    layer_placements = placements(plain, source, plan)
    layers = wrappers(model)
    trained = {
        tensor: ends
        for path, sites in range_tensors(model, layer_placements).items()
        for name, tensors in sites.items()
        for tensor in tensors
        if (ends := _ends(layers[path].sites[name])) is not None
    }
    trained |= dict(_implied_ranges(source.content, trained))
    required = [name for placement in layer_placements.values() for name in (*placement.tensors, *placement.inputs)]
    missing = [name for name in required if name not in trained]
    if missing and calibration is None:
        raise DataError(
            f"Expected representative data: training has not followed {len(missing)} of the activations, such as '{missing[0]}'. "
            "Received: none. Pass representative_dataset."
        )
    source, changed = restore_biases(plain, source, trained.keys())
    measured = calibration.seen if calibration is not None else {}
    statistics = {name: values for name, values in measured.items() if name not in changed}
    samples = calibration.samples if calibration is not None else 0
    return plain, TrainedRanges(source, samples, statistics, trained=trained)


def _ends(site: Any) -> Range | None:
    low, high = site.numbers()
    return (min(low, 0.0), max(high, 0.0)) if high > low else None


def _implied_ranges(content: bytes, trained: Mapping[str, Range]) -> Iterator[tuple[str, Range]]:
    """Yield the ranges of tensors whose kernel fixes the range, or passes that of its input on."""
    graph = Flatbuffer(content)
    known = dict(trained)
    for operator in graph.operators:
        kernel = graph.kernel(operator)
        source = graph.name(int(operator.inputs[0])) if len(operator.inputs) and operator.inputs[0] >= 0 else ""
        inherited = known.get(source) if kernel in SAME_VALUES or kernel in INPUT_SCALE else None
        implied = FIXED_RANGES.get(kernel, inherited)
        if implied is None:
            continue
        for number in operator.outputs:
            name = graph.name(int(number))
            if name not in known:
                known[name] = implied
                yield name, implied
