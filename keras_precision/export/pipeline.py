"""The export pipeline: from the checks of a request to the file in its place, the same for every toolchain."""

import os
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_precision._adapters.data.labels import samples_and_labels
from keras_precision._adapters.model_view import ModelView
from keras_precision.core.environment import Environment
from keras_precision.core.errors import (
    DestinationError,
    ExportError,
    InputError,
    ModelError,
    PlanError,
    PrecisionWarning,
)
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.files import check_destination, working_folder
from keras_precision.export.agreement_check import disagreement
from keras_precision.export.calibration_choice import method_of
from keras_precision.export.calibration_mismatch import calibration_mismatch
from keras_precision.export.card import card_text
from keras_precision.export.readback import check_file
from keras_precision.export.request import ExportRequest, needs_ranges
from keras_precision.export.toolchain import ExportJob, Toolchain
from keras_precision.quantization.calibration import Calibration, calibrate_view
from keras_precision.quantization.layer_trace import layers_of
from keras_precision.quantization.qat.finite_weights import check_finite
from keras_precision.quantization.range_estimators import AUTO
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.verify.evaluate import evaluate

__all__ = ["export_file"]


def export_file(
    toolchain: Toolchain,
    model: Any,
    path: str | os.PathLike[str],
    plan: str | PrecisionPlan | None,
    data: Any = None,
    *,
    io: str | None = None,
    validation_data: Any = None,
    overwrite: bool = True,
    input_signature: Any = None,
    **arguments: Any,
) -> Result:
    """Write a model as a file of a toolchain, read it back, and run it where this machine can.

    ``data`` are samples or a calibration, and ``arguments`` the other fields of an ``ExportRequest``; nothing is
    written unless all checks pass. Errors are those that the public functions document.
    """
    began = time.perf_counter()
    view = ModelView.callable(model, input_signature)
    _ = view.inputs  # a model that is not built is refused before anything else
    chosen = toolchain.decided("int8" if plan is None else plan)
    chosen = chosen if io is None else replace(chosen, io=io)
    chosen.resolve(view.layers)  # a layer that is not there is named before any other argument is checked
    request = ExportRequest(chosen, plan_given=plan is not None, **arguments)
    labelled = None if validation_data is None else samples_and_labels(validation_data)
    _check_equalizable(view, request, data)
    destination = _destination(path, toolchain, overwrite=overwrite)
    toolchain.require()
    plain, request, data = _as_trained(toolchain, view, request, data)
    job = _job(toolchain, plain, request, data)
    with working_folder(destination) as folder:
        written = folder / destination.name
        file, result = _checked_file(toolchain, job, written)
        found = calibration_mismatch(job, labelled and labelled[0]), disagreement(toolchain, job, written)
        concerns = [text for text in found if text is not None]
        result = replace(result, notes=(*result.notes, *concerns))
        if labelled is not None:
            result = result.with_measurements(evaluate(written, *labelled, reference=view.model))
        size = _with_card(toolchain, written, result, file)
        toolchain.place(folder, destination)
    for text in concerns:
        warnings.warn(text, PrecisionWarning, stacklevel=3)
    took = Measurement(destination.name, "export_time_s", time.perf_counter() - began)
    size_row = Measurement(destination.name, "size_bytes", size)
    return result.with_measurements([took, size_row, *toolchain.describe(file)])


def _check_equalizable(view: ModelView, request: ExportRequest, data: Any) -> None:
    if request.per_channel is False and (view.is_tfmot or view.is_quantize_aware):
        raise InputError(
            "Expected per_channel=True or None for a quantization-aware model, which was trained with one scale for each output. "
            "Received: False. Leave it out."
        )
    if not request.cross_layer_equalization:
        return
    if view.is_tfmot or view.is_quantize_aware:
        raise InputError(
            "Expected no cross_layer_equalization for a quantization-aware model, whose ranges were trained for the weights as they are. "
            "Received: True. Leave it out."
        )
    if isinstance(data, Calibration) and data.float_file.equalized_pairs is None:
        raise InputError(
            "Expected a calibration with cross_layer_equalization, since its ranges are those of scaled channels. "
            "Received: one without. Calibrate with kp.calibrate(model, representative_dataset, cross_layer_equalization=True)."
        )


def _destination(path: str | os.PathLike[str], toolchain: Toolchain, *, overwrite: bool) -> Path:
    folder = Path(path) if toolchain.writes_folders and isinstance(path, str | os.PathLike) else None
    if folder is not None and folder.suffix == toolchain.suffix and os.path.isfile(folder / "Manifest.json"):
        destination = folder
    else:
        destination = check_destination(path, suffix=toolchain.suffix)
    places = [destination, *map(destination.with_suffix, toolchain.companions)]
    taken = next((place for place in places if os.path.exists(place)), None)
    if taken is not None and not overwrite:
        raise DestinationError(
            f"Expected a path that is free. Received: '{taken}', which exists. Remove it, or export with overwrite=True."
        )
    return destination


def _as_trained(
    toolchain: Toolchain, view: ModelView, request: ExportRequest, data: Any
) -> tuple[ModelView, ExportRequest, Any]:
    """The float model of a quantization-aware one, its plan and the ranges that it was trained for; others unchanged."""
    if view.is_tfmot:
        _check_tfmot(toolchain, view, request)
        return view, request, data
    if not view.is_quantize_aware:
        return view, request, data
    check_finite(view.model)
    from keras_precision.quantization.qat.trained_model import trained_parts

    plain, plan, ranges = trained_parts(view.model, request.plan if request.plan_given else None, data)
    # Its biases were trained with the rounded weights, which already accounts for the mean error of rounding.
    plan = replace(toolchain.decided(plan), io=request.plan.io)
    request = replace(request, plan=plan, bias_correction=False, rounding="nearest", per_channel=True)
    return ModelView.of_built(plain).with_shapes(view.shapes), request, ranges


def _check_tfmot(toolchain: Toolchain, view: ModelView, request: ExportRequest) -> None:
    if not toolchain.exports_tfmot:
        raise ModelError(
            f"Expected a quantization-aware model of Keras 3 for {toolchain.name}. Received: '{view.name}' of tensorflow-model-optimization. "
            "Export it with kp.export_tflite."
        )
    if request.plan != PrecisionPlan.deployment("int8", io=request.plan.io):
        raise PlanError(
            "Expected the plan that the model was trained for. Received: another than int8. Leave the plan out."
        )
    check_finite(view.model)


def _job(toolchain: Toolchain, view: ModelView, request: ExportRequest, data: Any) -> ExportJob:
    calibration = _calibration(toolchain, view, request, data)
    if calibration is not None:
        view = view.with_shapes(calibration.float_file.input_shapes())
    if isinstance(data, Calibration) and calibration is not None and not needs_ranges(request.plan):
        return ExportJob(view, request, calibration.float_file, None, dict(calibration.held) or None)
    if calibration is None:
        return ExportJob(view, request, toolchain.float_source(view, request), None, data)
    method = request.calibration
    if request.precisions & {"int8", "int4"}:
        method = method_of(calibration, method)
    elif method == AUTO and not request.plain:  # activations of 16 bits need no clipping
        method = "minmax"
    return ExportJob(view, replace(request, calibration=method), calibration.float_file, calibration)


def _calibration(toolchain: Toolchain, view: ModelView, request: ExportRequest, data: Any) -> Calibration | None:
    """The values of the activations; None where the plan has no integer activations, or the toolchain chooses ranges."""
    if not toolchain.uses_calibration(view, request):
        return None
    if isinstance(data, Calibration):
        return data.expect(view.model) if toolchain.equalizes else data.expect_own_weights(view.model)
    if not (toolchain.calibrates and needs_ranges(request.plan)):
        return None
    return calibrate_view(view, data, cross_layer_equalization=request.cross_layer_equalization)


def _checked_file(toolchain: Toolchain, job: ExportJob, path: Path) -> tuple[EdgeModel, Result]:
    """Write a file, and read it back; return its operators, and the result that is to be its card."""
    request, trace = job.request, job.source.trace
    file = toolchain.export(job, path)
    model = toolchain.read_back(path)
    layers = layers_of(model, trace)
    realised, notes = check_file(model, toolchain.judged(model, request), request, layers, trace.paths)
    rows = {(row.metric, row.subject): row for row in toolchain.rows(path.name, job, file, model, layers)}
    name, environment = f"{toolchain.name}:{request.plan.default}", Environment.here(backend=model.runtime)
    return model, Result(name, tuple(rows.values()), environment, realised, (*notes, *file.notes))


def _with_card(toolchain: Toolchain, path: Path, result: Result, model: EdgeModel) -> int:
    """Put the result into a file as its card, and return the file's size; it is the same file otherwise."""
    toolchain.inscribe(path, card_text(result).decode())
    with_card = toolchain.read_back(path)
    if not toolchain.same_file(model, with_card):
        raise ExportError("Expected a file of the same operators with a card inside. Received: another.")
    return with_card.size_bytes
