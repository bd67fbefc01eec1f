"""What a quantization-aware model was trained for: its plan, its ranges, and the plain model that it stands for."""

from collections.abc import Iterator, Mapping
from typing import Any

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.errors import DataError, PlanError
from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.plan import PrecisionPlan
from keras_precision.quantization.calibration import calibrate
from keras_precision.quantization.float_model import float_file
from keras_precision.quantization.qat.keras3_engine import tensors_of
from keras_precision.quantization.qat.layers.model_surgery import unwrapped, wrappers
from keras_precision.quantization.qat.layers.rule_lookup import known_rule_of
from keras_precision.quantization.qat.placement import KEPT, ROUNDED, placements
from keras_precision.quantization.qat.trained_ranges import TrainedRanges
from keras_precision.quantization.range_estimators import FIXED
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["as_trained", "trained_plan"]


def trained_plan(model: Any) -> PrecisionPlan:
    """Return the deployment plan that a model was trained for.

    Args:
        model: A quantization-aware model of Keras 3.

    Returns:
        The plan; its default is the precision of most layers.
    """
    layers = layer_paths(model)
    weighted = {path: each.precision for path, each in wrappers(model).items() if each.rule.weights}
    precisions = [*weighted.values()]
    default = "int4" if precisions.count("int4") > precisions.count("int8") else "int8"
    bare = {path: "float32" for path, layer in layers.items() if _left_in_float(layer)}
    others = {path: each for path, each in weighted.items() if each != default}
    return PrecisionPlan.deployment(default, layers={**others, **bare})


def _left_in_float(layer: Any) -> bool:
    """Whether a layer is wrapped for float, or has weights and no wrapper, and no kernel takes it in."""
    precision = getattr(layer, "precision", None)
    return precision == "float32" or (precision is None and bool(layer.weights) and not _folds(layer))


def _folds(layer: Any) -> bool:
    """Whether a kernel may take the layer in; one that has no rule can only have been left in float."""
    rule = known_rule_of(layer)
    return rule is not None and rule.folds


def as_trained(model: Any, plan: PrecisionPlan | None, data: Any) -> tuple[Any, PrecisionPlan, TrainedRanges]:
    """Return what there is to export of a quantization-aware model.

    Args:
        model: The model, of Keras 3.
        plan: The plan that is asked for; None for the one that it was trained for.
        data: Representative data, for activations that training did not follow; None where there are none.

    Returns:
        The plain model, the plan, and the ranges of its file.

    Raises:
        PlanError: The model was trained for another plan.
        DataError: Training did not follow all activations, and there are no data to choose ranges from.
    """
    trained = trained_plan(model)
    paths = layer_paths(model)
    if plan is not None:
        wanted = plan.resolve(paths)
        for path, wrapper in wrappers(model).items():
            if wrapper.rule.weights and wanted[path] != wrapper.precision:
                raise PlanError(
                    f"Expected the plan that the model was trained for. Received: '{path}' in {wanted[path]}, "
                    f"which was trained for {wrapper.precision}. Leave the plan out, or export kp.from_quantize_aware(model)."
                )
    plain, ranges = trained_ranges(model, trained, data)
    return plain, trained, ranges


def trained_ranges(model: Any, plan: PrecisionPlan, data: Any) -> tuple[Any, TrainedRanges]:
    """Return the plain model, and the ranges that its file is to have.

    Args:
        model: A quantization-aware model of Keras 3.
        plan: What it was trained for.
        data: Representative data, for activations that training did not follow; None where there are none.

    Returns:
        The model in float, with the trained weights; the ranges.

    Raises:
        DataError: Training did not follow all activations, and there are no data to choose ranges from.
    """
    plain = unwrapped(adapter_of(model), model)
    measured = None if data is None else calibrate(plain, data)
    source = measured.float_file if measured is not None else float_file(plain)
    found = placements(plain, source, plan)
    made = wrappers(model)
    trained = {
        tensor: each
        for path, sites in tensors_of(model, found).items()
        for name, tensors in sites.items()
        for tensor in tensors
        if (each := _ends(made[path].sites[name])) is not None
    }
    trained |= dict(_implied(source.content, trained))
    due = [name for place in found.values() for name in (*place.tensors, place.input) if name is not None]
    missing = [name for name in due if name not in trained]
    if missing and measured is None:
        raise DataError(
            f"Expected representative data: training has not followed {len(missing)} of the activations, such as '{missing[0]}'. "
            "Received: none. Give representative_dataset."
        )
    seen = measured.seen if measured is not None else {}
    samples = measured.samples if measured is not None else 0
    return plain, TrainedRanges(source, samples, seen, trained=trained)


def _ends(site: Any) -> Range | None:
    low, high = site.numbers()
    return (min(low, 0.0), max(high, 0.0)) if high > low else None


def _implied(content: bytes, trained: Mapping[str, Range]) -> Iterator[tuple[str, Range]]:
    """The ranges that kernels fix, and those that they hand on."""
    graph = Flatbuffer(content)
    known = dict(trained)
    for operator in graph.operators:
        kernel = graph.kernel(operator)
        source = graph.name(int(operator.inputs[0])) if len(operator.inputs) and operator.inputs[0] >= 0 else ""
        handed_on = known.get(source) if kernel in KEPT or kernel in ROUNDED else None
        found = FIXED.get(kernel, handed_on)
        if found is None:
            continue
        for number in operator.outputs:
            name = graph.name(int(number))
            if name not in known:
                known[name] = found
                yield name, found
