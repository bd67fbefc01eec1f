"""export_tflite: a Keras model as a TensorFlow Lite file that was read back and run."""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.errors import DestinationError, ExportError, InputError, PlanError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.files import check_destination, write_whole
from keras_precision.export.calibration_choice import method_of
from keras_precision.export.candidate import Candidate, best_candidate, plain_candidate, read_back
from keras_precision.export.card import facts, operator_rows, with_card
from keras_precision.export.readback import check_plan, check_runs, realised_plan
from keras_precision.export.request import Request, side_type, wanted_plan
from keras_precision.quantization.calibration import Calibration, calibrate
from keras_precision.quantization.conversion import convert
from keras_precision.quantization.fidelity import check_faithful
from keras_precision.quantization.float_model import convert_anywhere
from keras_precision.quantization.qat.finite_weights import check_finite
from keras_precision.quantization.qat.quantize_aware import is_prepared, is_quantize_aware
from keras_precision.quantization.range_estimators import AUTO
from keras_precision.runtimes.tflite.file import runtime as installed_runtime
from keras_precision.verify.evaluate import evaluate
from keras_precision.verify.validation_data import samples_and_labels

__all__ = ["export_tflite"]


def export_tflite(
    model: Any,
    path: str | os.PathLike[str],
    plan: str | PrecisionPlan | None = None,
    representative_dataset: Any = None,
    *,
    calibration: str = "auto",
    percentile: float = 99.99,
    bias_correction: bool = True,
    cross_layer_equalization: bool = False,
    engine: Literal["auto", "aeq", "converter"] = "auto",
    runtime: Literal["litert", "tflite-runtime", "tflm"] = "litert",
    io: Literal["int8", "int16", "float32"] | None = None,
    validation_data: Any = None,
    strict: bool = False,
    overwrite: bool = True,
) -> Result:
    """Write a model as a ``.tflite`` file, read it back, and run it.

    The file takes one sample at a time: a free batch axis costs shape arithmetic at run time. A
    model in mixed precision is exported from its float32 weights, one of the JAX or PyTorch
    backend in a process of its own that runs Keras on TensorFlow.

    Args:
        model: A built functional or sequential model of tf_keras, or of Keras 3 on any backend.
        path: Where the file goes, ending in ``.tflite``; its folder must exist. Nothing is written
            unless all checks pass.
        plan: A deployment plan, or one precision: ``"float32"``, ``"float16"`` (weights),
            ``"int8"``, ``"int16x8"`` (16-bit activations, 8-bit weights), ``"int4"`` (4-bit
            weights, 8-bit activations) or ``"int8_dynamic"`` (8-bit weights, activations
            quantized as the model runs). None: int8, or, for what ``kp.quantize_aware`` returned,
            what it was trained for.
        representative_dataset: Samples to choose the ranges of activations from, as for ``kp.calibrate``,
            or what that returned. Needed where activations become integers by no ranges of training.
        calibration: How ranges are chosen: ``"mse"``, ``"minmax"``, ``"percentile"``, ``"entropy"``,
            or ``"auto"``: of the first two the one whose int8 file answers more as the model does,
            on up to 256 of the samples. Those of int16 are always the full ones.
        percentile: For that method: the share of values, in percent, that each end keeps.
        bias_correction: Take the mean error of quantized weights out of biases.
        cross_layer_equalization: Scale channels between layers so that their weights reach alike on both
            sides. A calibration must have been made with it, and brings it along.
        engine: ``"aeq"`` (AI Edge Quantizer), ``"converter"`` (the quantizer of TFLiteConverter,
            int8 and float32 alone), or ``"auto"``: whichever leaves less in float.
        runtime: What the file is to run on. It is run on LiteRT in any case.
        io: Element type of inputs and outputs; None: that of the plan's default activations.
        validation_data: ``(samples, labels)``, or a dataset of such batches: adds the file's accuracy, and its
            agreement with the model, to the result and to the card inside the file.
        strict: Raise for every operator that is not in the plan's default, not for named layers alone.
        overwrite: Whether an older file at ``path`` may be replaced.

    Returns:
        The rows that docs/export.md lists; the plan that the file realises; notes that name the
        layers that stayed in float.

    Raises:
        PrecisionError: The kinds that docs/export.md lists, each with what to do.

    Example:
        >>> result = export_tflite(model, "model.tflite", "int8", representative_dataset=x_cal)
        >>> result.value("operator_count", "FULLY_CONNECTED int8")
        2
    """
    began = time.perf_counter()
    adapter_of(model).inputs(model)  # refuses what cannot be exported
    decided = wanted_plan("int8" if plan is None else plan)
    decided.resolve(layer_paths(model))
    how = (calibration, percentile, bias_correction, cross_layer_equalization)
    request = Request(decided, side_type(io, decided), *how, engine, runtime, strict)
    held = None if validation_data is None else samples_and_labels(validation_data)
    _check_equalizable(model, request, representative_dataset)
    destination = _destination(path, overwrite=overwrite)
    installed_runtime()
    plain, request, data = _as_trained(model, plan, request, io, representative_dataset)
    made, measured, realised, notes, request = _checked(plain, request, data)
    told = facts(destination.name, request, made, measured, realised, notes)
    if held is not None:
        told = told.with_measurements(_scores(model, made.content, destination.name, held))
    size = _write(destination, made, told)
    took = Measurement(destination.name, "export_time_s", time.perf_counter() - began)
    return told.with_measurements([took, size, *operator_rows(made.model)])


def _check_equalizable(model: Any, request: Request, data: Any) -> None:
    if not request.cross_layer_equalization:
        return
    if is_prepared(model) or is_quantize_aware(model):
        raise InputError(
            "Expected no cross_layer_equalization for a quantization-aware model, whose ranges were trained for the weights as they are. "
            "Received: True. Leave it out."
        )
    if isinstance(data, Calibration) and data.float_file.equalized_pairs is None:
        raise InputError(
            "Expected a calibration with cross_layer_equalization, since its ranges are those of scaled channels. "
            "Received: one without. Calibrate with kp.calibrate(model, representative_dataset, cross_layer_equalization=True)."
        )


def _as_trained(
    model: Any, plan: str | PrecisionPlan | None, request: Request, io: str | None, data: Any
) -> tuple[Any, Request, Any]:
    """The plain model behind a quantization-aware one, the plan and the ranges that it was trained for; others as they are."""
    if is_prepared(model):
        if request.plan != PrecisionPlan.deployment("int8"):
            raise PlanError(
                "Expected the plan that the model was trained for. Received: another than int8. Leave the plan out."
            )
        check_finite(model)
        return model, request, data
    if not is_quantize_aware(model):
        return model, request, data
    check_finite(model)
    from keras_precision.quantization.qat.trained_model import as_trained

    plain, trained, ranges = as_trained(model, None if plan is None else request.plan, data)
    # Its biases were trained with the rounded weights: what rounding does to the mean is in them already.
    return plain, replace(request, plan=trained, io=side_type(io, trained), bias_correction=False), ranges


def _destination(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    destination = check_destination(path, suffix=".tflite")
    if destination.exists() and not overwrite:
        raise DestinationError(
            f"Expected a path that is free. Received: '{destination}', which exists. Remove it, or export with overwrite=True."
        )
    return destination


def _write(destination: Path, made: Candidate, told: Result) -> Measurement:
    """Put a file with its card into its place; return its size."""
    content = with_card(made.content, told)
    if read_back(content).operators != made.model.operators:
        raise ExportError("Expected a file of the same operators with a card inside. Received: others.")
    write_whole(destination, content)
    return Measurement(destination.name, "size_bytes", len(content))


def _checked(
    model: Any, request: Request, data: Any
) -> tuple[Candidate, Calibration | None, PrecisionPlan, tuple[str, ...], Request]:
    """A file that does what is asked for, what its ranges were chosen from, its plan, what was relaxed, and how."""
    measured: Calibration | None = None
    if request.plain:
        made = plain_candidate(convert_anywhere(model, "float16" if request.plan.default == "float16" else "float32"))
        check_faithful(model, made.content)
    elif is_prepared(model):
        made = plain_candidate(convert(model, "trained" if request.io == "int8" else "trained_float_io"), "tfmot")
    else:
        measured = _calibration(model, request, data)
        request = _settled(request, measured)
        made = best_candidate(model, request, measured)
    realised = realised_plan(made.model, request.plan, made.layers, list(made.trace.paths))
    notes = check_plan(made.model, request.plan, realised, made.layers, strict=request.strict)
    check_runs(made.model, made.layers, request.runtime)
    return made, measured, realised, (*notes, *made.notes), request


def _settled(request: Request, measured: Calibration | None) -> Request:
    """The request with the method that is meant; one without 8-bit activations needs none."""
    if measured is None or not request.precisions & {"int8", "int4"}:
        return replace(request, calibration="minmax" if request.calibration == AUTO else request.calibration)
    return replace(request, calibration=method_of(measured, request.calibration))


def _calibration(model: Any, request: Request, data: Any) -> Calibration | None:
    """The values of the activations; None where the plan has no integer activations to choose ranges for."""
    if isinstance(data, Calibration):
        return data.expect(model)
    if not request.needs_ranges:
        return None
    return calibrate(model, data, cross_layer_equalization=request.cross_layer_equalization)


def _scores(model: Any, content: bytes, name: str, held: tuple[Any, Any]) -> Iterator[Measurement]:
    """What the file scores on held-out samples, and how often it answers as the model does."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_whole(Path(folder) / name, content)
        yield from evaluate(path, *held, reference=model)
