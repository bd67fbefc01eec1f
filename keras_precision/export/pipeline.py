"""ship: the way that every toolchain's export takes, from the checks to the file in its place."""

import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.environment import Environment
from keras_precision.core.errors import DestinationError, ExportError, ModelError
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.files import check_destination
from keras_precision.export.calibration_choice import method_of
from keras_precision.export.card import card_text, input_ranges, sides
from keras_precision.export.readback import check_plan, realised_plan
from keras_precision.export.toolchain import Job, Order, Toolchain
from keras_precision.quantization.calibration import Calibration, calibrate
from keras_precision.quantization.float_model import float_file
from keras_precision.quantization.layer_trace import layers_of
from keras_precision.quantization.qat.quantize_aware import is_prepared, is_quantize_aware
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.verify.evaluate import evaluate
from keras_precision.verify.validation_data import samples_and_labels

__all__ = ["ship"]


def ship(
    toolchain: Toolchain,
    model: Any,
    path: str | os.PathLike[str],
    order: Order,
    data: Any,
    *,
    validation_data: Any = None,
    overwrite: bool = True,
) -> Result:
    """Write a model as a file of a toolchain, read it back, and run it where this machine can.

    Args:
        toolchain: The toolchain.
        model: A built functional or sequential model.
        path: Where the file, or folder, goes.
        order: What is asked for.
        data: Representative data, or a calibration; None where the plan needs none.
        validation_data: ``(samples, labels)``, or a dataset of such batches, to score the file on.
        overwrite: Whether what is at ``path`` may be replaced.

    Returns:
        The result that the public verbs describe.

    Raises:
        PrecisionError: As the public verbs say.
    """
    began = time.perf_counter()
    adapter_of(model).inputs(model)  # refuses what cannot be exported
    order.plan.resolve(layer_paths(model))
    held = None if validation_data is None else samples_and_labels(validation_data)
    destination = _destination(path, toolchain, overwrite=overwrite)
    toolchain.require()
    plain, order, data = _as_trained(toolchain, model, order, data)
    job = _job(toolchain, plain, order, data)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as folder:
        made = Path(folder) / destination.name
        remarks = toolchain.export(job, made)
        read = toolchain.read_back(made)
        layers, judged = layers_of(read, job.source.trace), toolchain.judged(read, order)
        realised = realised_plan(judged, order.plan, layers, list(job.source.trace.paths))
        notes = check_plan(judged, order.plan, realised, layers, strict=order.strict)
        rows = [*_how(job, destination.name), *sides(read)]
        if held is not None:
            rows += evaluate(made, *held, reference=model)
        unique = tuple({row.metric + row.subject: row for row in rows}.values())
        name, environment = f"{toolchain.name}:{order.plan.default}", Environment.here(backend=read.runtime)
        told = Result(name, unique, environment, realised, (*notes, *remarks))
        size = _with_card(toolchain, made, told, read)
        _place(Path(folder), destination)
    took = Measurement(destination.name, "export_time_s", time.perf_counter() - began)
    rows = [took, Measurement(destination.name, "size_bytes", size), *toolchain.describe(read)]
    return told.with_measurements(rows)


def _with_card(toolchain: Toolchain, made: Path, told: Result, read: EdgeModel) -> int:
    """Have a file say how it was made, and return its size; it is the same file otherwise."""
    toolchain.inscribe(made, card_text(told).decode())
    again = toolchain.read_back(made)
    # By kind: OpenVINO gives its operators other names each time that it reads a file.
    if again.operator_counts != read.operator_counts or again.outputs != read.outputs or not again.card:
        raise ExportError("Expected a file of the same operators with a card inside. Received: another.")
    return again.size_bytes


def _destination(path: str | os.PathLike[str], toolchain: Toolchain, *, overwrite: bool) -> Path:
    suffix = toolchain.suffix
    wanted = Path(path) if isinstance(path, str | os.PathLike) else None
    if wanted is not None and wanted.suffix == suffix and wanted.is_dir() and (wanted / "Manifest.json").is_file():
        destination = wanted  # a format whose files are folders
    else:
        destination = check_destination(path, suffix=suffix)
    places = [destination, *(destination.with_suffix(each) for each in toolchain.companions)]
    taken = next((each for each in places if each.exists()), None)
    if taken is not None and not overwrite:
        raise DestinationError(
            f"Expected a path that is free. Received: '{taken}', which exists. Remove it, or export with overwrite=True."
        )
    return destination


def _as_trained(toolchain: Toolchain, model: Any, order: Order, data: Any) -> tuple[Any, Order, Any]:
    """The plain model behind a quantization-aware one, the plan and the ranges that it was trained for; others as they are."""
    if is_prepared(model):
        raise ModelError(
            f"Expected a quantization-aware model of Keras 3 for {toolchain.name}. Received: '{model.name}' of tensorflow-model-optimization. "
            "Export it with kp.export_tflite."
        )
    if not is_quantize_aware(model):
        return model, order, data
    from keras_precision.quantization.qat.trained_model import as_trained

    plain, trained, ranges = as_trained(model, order.plan if order.asked else None, data)
    return plain, replace(order, plan=toolchain.decided(trained)), ranges


def _job(toolchain: Toolchain, model: Any, order: Order, data: Any) -> Job:
    if isinstance(data, Calibration):
        return _calibrated(model, order, data.expect_own_weights(model))
    if toolchain.calibrates and "int8" in order.precisions:
        return _calibrated(model, order, calibrate(model, data))
    return Job(model, order, float_file(model), None, data)


def _calibrated(model: Any, order: Order, measured: Calibration) -> Job:
    if "int8" in order.precisions:
        order = replace(order, calibration=method_of(measured, order.calibration))
    return Job(model, order, measured.float_file, measured)


def _how(job: Job, subject: str) -> list[Measurement]:
    if job.measured is None:
        return []
    return [
        Measurement(subject, "calibration_samples", job.measured.samples),
        Measurement(subject, "calibration_method", job.order.calibration),
        *input_ranges(job.measured),
    ]


def _place(folder: Path, destination: Path) -> None:
    """Put all that was made into its place; the file that names the others comes last."""
    made = sorted(folder.iterdir(), key=lambda each: each.name == destination.name)
    for each in made:
        target = destination.parent / each.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(each, target)
