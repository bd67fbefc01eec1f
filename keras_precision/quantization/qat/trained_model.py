"""The parts of a quantization-aware model that an export needs: its plan, its ranges, and the plain model."""

from collections.abc import Sequence
from typing import Any

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision._adapters.model_view import ModelView
from keras_precision.core.errors import DataError, PlanError
from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.plan import PrecisionPlan
from keras_precision.quantization.calibration import calibrate_view
from keras_precision.quantization.float_model import float_file
from keras_precision.quantization.qat.followed import unfollowed, with_implied_ranges
from keras_precision.quantization.qat.keras3_engine import range_tensors
from keras_precision.quantization.qat.layers.model_surgery import unwrap_layers, wrappers
from keras_precision.quantization.qat.layers.rule_lookup import known_rule_of
from keras_precision.quantization.qat.layers.sample_buffer import sample_buffers
from keras_precision.quantization.qat.moved_bias import restore_biases
from keras_precision.quantization.qat.placement import placements
from keras_precision.quantization.qat.trained_ranges import TrainedRanges

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

    The representative data serve activations without a trained range, and so do, where data is None, the samples that the
    model holds. DataError where it holds none, and PlanError where the requested plan is another one than the model was
    trained for.
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
    view = ModelView.of(plain)
    calibration = None if data is None else calibrate_view(view, data)
    source = calibration.float_file if calibration is not None else float_file(view)
    layer_placements = placements(plain, source, plan)
    layers = wrappers(model)
    trained = {
        tensor: ends
        for path, sites in range_tensors(model, layer_placements).items()
        for name, tensors in sites.items()
        for tensor in tensors
        if (ends := _ends(layers[path], name)) is not None
    }
    missing = unfollowed(source, plan, trained)
    if missing and calibration is None:
        calibration = calibrate_view(view, _buffered_samples(model, missing))
        source = calibration.float_file
    trained = with_implied_ranges(source.content, trained)
    source, changed = restore_biases(plain, source, trained.keys())
    measured = calibration.seen if calibration is not None else {}
    statistics = {name: values for name, values in measured.items() if name not in changed}
    samples = calibration.samples if calibration is not None else 0
    return plain, TrainedRanges(source, samples, statistics, trained=trained)


def _ends(wrapper: Any, name: str) -> Range | None:
    """Return a range of a wrapper, which may be empty where a layer computes zeros; None before the first batch."""
    low, high = wrapper.sites[name].numbers()
    return (min(low, 0.0), max(high, 0.0)) if high > low or wrapper.has_trained else None


def _buffered_samples(model: Any, missing: Sequence[str]) -> tuple[Any, ...]:
    """Return the samples that a model holds, one array per input; DataError if it holds none."""
    samples = tuple(buffer.samples() for buffer in sample_buffers(model))
    if not samples or not all(map(len, samples)):
        raise DataError(
            f"Expected representative data: training has not followed {len(missing)} of the activations, such as '{missing[0]}'. "
            "Received: none. Train the model first, or pass representative_dataset."
        )
    return samples
