"""export_tflite: a Keras model as a TensorFlow Lite file that was read back and run."""

import os
import time
from collections.abc import Iterator
from typing import Any, Literal

from keras_precision._adapters import adapter_of
from keras_precision._adapters.paths import layer_paths
from keras_precision.deploy.candidate import Candidate, best_candidate, plain_candidate
from keras_precision.deploy.readback import check_plan, realised_plan
from keras_precision.environment import Environment
from keras_precision.errors import DestinationError, InputError, UnknownPrecisionError
from keras_precision.files import check_destination, write_whole
from keras_precision.plan import PrecisionPlan, check_precision
from keras_precision.quantize.calibration import Calibration, calibrate
from keras_precision.quantize.float_file import convert_anywhere
from keras_precision.ranges import check_method
from keras_precision.result import Measurement, Result
from keras_precision.tflite_file import EdgeModel, runtime

__all__ = ["export_tflite"]

_INTEGER = {"int8": "int8", "int16x8": "int16", "int4": "int8"}  # formats of activations that ranges are needed for
_ENGINES = ("auto", "aeq", "converter")


def export_tflite(
    model: Any,
    path: str | os.PathLike[str],
    plan: str | PrecisionPlan = "int8",
    representative_dataset: Any = None,
    *,
    calibration: str = "mse",
    percentile: float = 99.99,
    engine: Literal["auto", "aeq", "converter"] = "auto",
    io: Literal["int8", "int16", "float32"] | None = None,
    strict: bool = False,
    overwrite: bool = True,
) -> Result:
    """Write a model as a ``.tflite`` file, read it back, and run it once.

    The file takes one sample at a time: a free batch axis costs shape arithmetic at run time. A
    model in mixed precision is exported from its float32 weights, and one of the JAX or PyTorch
    backend in a process of its own that runs Keras on TensorFlow.

    Args:
        model: A built functional or sequential model of tf_keras, or of Keras 3 on any backend.
        path: Where the file goes, ending in ``.tflite``; its folder must exist. Nothing is written
            unless all checks pass.
        plan: ``"float32"``, ``"float16"`` (weights; computed in float32 on most processors),
            ``"int8"`` (weights and activations), ``"int16x8"`` (16-bit activations, 8-bit
            weights), ``"int4"`` (4-bit weights of dense and convolution layers, 8-bit
            activations), ``"int8_dynamic"`` (8-bit weights, activations quantized as the model
            runs), or a deployment plan that gives each layer one of these.
        representative_dataset: What ``kp.calibrate`` made of the model, or the samples for it: an
            array of shape (n, ...), one per input as a tuple or dict, or anything that ``fit``
            takes (labels are dropped). Needed where activations become integers.
        calibration: How the ranges of activations are chosen from the samples: ``"mse"``,
            ``"minmax"``, ``"percentile"`` or ``"entropy"``. Ranges of int16 are always the full ones.
        percentile: For that method: the share of values, in percent, that each end keeps.
        engine: ``"aeq"`` (AI Edge Quantizer), ``"converter"`` (the quantizer of TFLiteConverter,
            for int8 and float32), or ``"auto"``: the first, or the second where it turns more
            operators into integer ones.
        io: Element type of inputs and outputs; None: that of the plan's default activations.
        strict: Raise for every operator that is not in the plan's default, not for named layers alone.
        overwrite: Whether an older file at ``path`` may be replaced.

    Returns:
        A result with ``size_bytes``, ``operator`` for each operator, ``operator_count`` for each
        kind, ``input_type`` and ``output_type``, ``calibration_samples``, ``engine`` and
        ``export_time_s``; its plan is the one that the file realises, and its notes name the
        layers that stayed in float.

    Raises:
        UnknownPrecisionError: The precision is not one that this verb writes.
        PlanKindError: A training plan was given.
        PlanError: The plan wants two precisions for layers that are one operator of the file.
        UnknownLayerError: The plan names a layer that the model does not have.
        DataError: The representative data are missing, empty, or do not fit the model.
        ModelError: The model is subclassed or not built, has a free size, or other weights than
            the calibration.
        InputError: An option is unknown.
        DestinationError: The path cannot be written, or a file is there and ``overwrite`` is False.
        MissingExtraError: TensorFlow, the quantizer or the interpreter is not installed.
        PlanNotHonouredError: The file does not compute a named layer as the plan says.
        ExportError: An engine failed.

    Example:
        >>> result = export_tflite(model, "model.tflite", "int8", representative_dataset=x_cal)
        >>> result.value("operator_count", "FULLY_CONNECTED int8")
        2
    """
    began = time.perf_counter()
    decided = _decided(plan)
    adapter_of(model).inputs(model)  # refuses what cannot be exported
    decided.resolve(layer_paths(model))
    side = _side(io, decided)
    check_method(calibration, percentile)
    if engine not in _ENGINES:
        raise InputError(f"Expected engine to be one of {', '.join(_ENGINES)}. Received: {engine!r}.")
    destination = check_destination(path, suffix=".tflite")
    if destination.exists() and not overwrite:
        raise DestinationError(
            f"Expected a path that is free. Received: '{destination}', which exists. Remove it, or export with overwrite=True."
        )
    runtime()
    measured: Calibration | None = None
    if _precisions(decided) <= {"float32"} or decided == PrecisionPlan.deployment("float16"):
        made = plain_candidate(convert_anywhere(model, "float16" if decided.default == "float16" else "float32"))
    else:
        measured = _calibration(model, decided, representative_dataset)
        made = best_candidate(model, decided, measured, calibration, percentile, engine, side)
    realised = realised_plan(made.model, decided, made.layers, list(made.trace.paths))
    notes = check_plan(made.model, decided, realised, made.layers, strict=strict)
    write_whole(destination, made.content)
    rows = [
        Measurement(destination.name, "export_time_s", time.perf_counter() - began),
        Measurement(destination.name, "engine", made.engine),
        *_rows(destination.name, made.model),
    ]
    if measured is not None:
        rows.append(Measurement(destination.name, "calibration_samples", measured.samples))
        rows.append(Measurement(destination.name, "calibration_method", calibration))
    environment = Environment.here(backend=made.model.runtime)
    return Result(f"tflite:{decided.default}", tuple(rows), environment, realised, (*notes, *made.notes))


def _decided(plan: str | PrecisionPlan) -> PrecisionPlan:
    if not isinstance(plan, PrecisionPlan):
        check_precision(plan, "deployment", "the plan")
        plan = PrecisionPlan.deployment(plan)
    return plan.expect("deployment")


def _precisions(plan: PrecisionPlan) -> set[str]:
    return {plan.default, *plan.layers.values()}


def _side(io: str | None, plan: PrecisionPlan) -> str:
    """The element type of inputs and outputs."""
    own = _INTEGER.get(plan.default, "float32")
    if io not in (None, "int8", "int16", "float32"):
        raise InputError(f"Expected io to be 'int8', 'int16' or 'float32'. Received: {io!r}.")
    if io not in (None, "float32", own):
        raise InputError(
            f"Expected io='float32'{f' or {own!r}' if own != 'float32' else ''} for a {plan.default} file. Received: io={io!r}."
        )
    return io or own


def _calibration(model: Any, plan: PrecisionPlan, data: Any) -> Calibration | None:
    """The values of the activations; None where the plan has no integer activations to choose ranges for."""
    if isinstance(data, Calibration):
        return data.expect(model)
    return calibrate(model, data) if _precisions(plan) & set(_INTEGER) else None


def _rows(subject: str, written: EdgeModel) -> Iterator[Measurement]:
    yield Measurement(subject, "size_bytes", written.size_bytes)
    for index, operator in enumerate(written.operators):
        text = f"{operator.kernel} {operator.precision} ({operator.types})"
        yield Measurement(f"{index}:{operator.kernel}", "operator", text)
    for kind, count in written.operator_counts.items():
        yield Measurement(kind, "operator_count", count)
    for tensor in written.inputs:
        yield Measurement(tensor.name, "input_type", tensor.described)
    for tensor in written.outputs:
        yield Measurement(tensor.name, "output_type", tensor.described)
