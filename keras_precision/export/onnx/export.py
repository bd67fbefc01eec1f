"""export_onnx: a Keras model as an ``.onnx`` file that was read back and run on ONNX Runtime."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from keras_precision.core.errors import ExportError, InputError, nearest
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.core.system.files import write_atomic
from keras_precision.export.checks.tensorrt import check_tensorrt
from keras_precision.export.conversion_check import check_conversion
from keras_precision.export.onnx.graph import onnx_graph
from keras_precision.export.onnx.quantizer import TARGETS, in_float16, quantized_graph
from keras_precision.export.pipeline import export_file
from keras_precision.export.request import ExportRequest
from keras_precision.export.toolchain import ExportedFile, ExportJob, Toolchain, check_session
from keras_precision.runtimes.model_info import CARD, EdgeModel
from keras_precision.runtimes.onnx import OnnxSession, inspect_onnx, read_onnx
from keras_precision.runtimes.onnx_operators import PRODUCTS

__all__ = ["OnnxToolchain", "export_onnx"]


def export_onnx(
    model: Any,
    path: str | os.PathLike[str],
    plan: str | PrecisionPlan | None = None,
    representative_dataset: Any = None,
    *,
    target: Literal["onnxruntime", "tensorrt"] = "onnxruntime",
    calibration: str = "auto",
    percentile: float = 99.99,
    validation_data: Any = None,
    reduce_range: bool = True,
    strict: bool = False,
    input_signature: Any = None,
    overwrite: bool = True,
) -> Result:
    """Write a model as an ``.onnx`` file, read it back, and run it on ONNX Runtime.

    The file takes one sample at a time, in float32, and computes in integers where QuantizeLinear
    and DequantizeLinear say so. Weights are int8, symmetric, with a scale per channel.

    Args:
        model: A built model of tf_keras, or of Keras 3 on any backend; a subclassed one must have been called.
        path: Where the file goes, ending in ``.onnx``; its folder must exist. Nothing is written
            unless all checks pass.
        plan: ``"float32"``, ``"float16"``, ``"int8"``, or a deployment plan of int8 and float32.
            None: int8, or, for what ``kp.quantize_aware`` returned, what it was trained for.
        representative_dataset: Samples to choose the ranges of activations from, as for
            ``kp.calibrate``, or what that returned. Needed for int8.
        target: ``"onnxruntime"``, or ``"tensorrt"``, whose rules for explicit quantization the file
            then obeys; TensorRT itself is not run.
        calibration: How ranges are chosen: ``"mse"``, ``"minmax"``, ``"percentile"``, ``"entropy"`` or
            ``"auto"``, as for ``kp.export_tflite``.
        percentile: For that method: the share of values, in percent, on the inner side of either end of the range.
        validation_data: ``(samples, labels)``, or a dataset of such batches: adds the file's accuracy, and its
            agreement with the model, to the result.
        reduce_range: Whether int8 weights have 7 bits, so that outputs are right on every processor: on x86 without VNNI,
            ONNX Runtime adds products of 8 bits in 16, where they saturate. False, for all 8 bits, is for processors
            with VNNI or ARM's dot products (``kp.hardware()``). TensorRT's files have all 8.
        strict: Raise for every operator that is not in the plan's default, not for named layers alone.
        input_signature: The sizes of inputs that the model leaves free, as ``Model.export`` of Keras takes them, such as
            ``[keras.InputSpec(shape=(1, 128), dtype="int32")]``. None: those of the data.
        overwrite: Whether an older file at ``path`` may be replaced.

    Returns:
        ``operator`` and ``operator_count``, ``input_type``, ``output_type``, ``size_bytes``,
        ``export_time_s``, and how it was calibrated; the plan that the file realises; notes that
        name what stayed in float.

    Raises:
        InputError: An argument is out of range, or the plan does not fit the model or the format.
        ModelError: The model is not built or cannot be called on symbolic inputs, or an input has a free size.
        DataError: Representative data are missing, or do not fit.
        DestinationError: The path cannot be written.
        ExportError: An operator has no counterpart, or the file's predictions are not those of the model.
        PlanNotHonouredError: A layer that the plan names is in another precision.
        MissingExtraError: A package is missing.

    Example:
        >>> result = export_onnx(model, "model.onnx", "int8", representative_dataset=x_cal)
        >>> result.value("operator_count", "MatMul int8")
        2
    """
    return export_file(
        OnnxToolchain(target, reduce_range=reduce_range), model, path, plan, representative_dataset, calibration=calibration, percentile=percentile, strict=strict,
        validation_data=validation_data, input_signature=input_signature, overwrite=overwrite,
    )  # fmt: skip


class OnnxToolchain(Toolchain):
    """``.onnx`` files on ONNX Runtime.

    Args:
        target: What is to run the file: one of ``TARGETS``.
        reduce_range: Whether int8 weights for ONNX Runtime have 7 bits.

    Raises:
        InputError: The target is unknown.
    """

    name, suffix, extra = "onnx", ".onnx", "onnx"
    packages = ("onnx", "onnxruntime", "tf2onnx")

    def __init__(self, target: str = "onnxruntime", *, reduce_range: bool = True) -> None:
        if target not in TARGETS:
            raise InputError(
                f"Expected target to be one of {', '.join(TARGETS)}. Received: {target!r}. {nearest(str(target), TARGETS)}".rstrip()
            )
        self._target, self._reduce_range = target, reduce_range and target == "onnxruntime"

    def export(self, job: ExportJob, path: Path) -> ExportedFile:
        """Write the file; the float graph's predictions are checked before anything is quantized."""
        graph = onnx_graph(job.source, job.model.name)
        write_atomic(path, graph.SerializeToString())
        check_conversion(job, OnnxSession(path), "tf2onnx")
        notes: tuple[str, ...] = ()
        if job.calibration is not None and "int8" in job.request.precisions:
            quantized = quantized_graph(graph, job, self._target, reduce_range=self._reduce_range)
            write_atomic(path, quantized.SerializeToString())
            if self._target == "tensorrt":
                _check_rules(path)
                notes = (
                    "TensorRT itself was not run: the file was run on ONNX Runtime, and checked against TensorRT's rules.",
                )
        elif job.request.plan.default == "float16":
            write_atomic(path, in_float16(graph).SerializeToString())
            check_session(job.view, OnnxSession(path))
        return ExportedFile(notes)

    def read_back(self, path: Path) -> EdgeModel:
        """Read the file, and run it once."""
        return inspect_onnx(path)

    def inscribe(self, path: Path, card: str) -> None:
        """Put the card among the file's own metadata."""
        graph = read_onnx(path)
        graph.metadata_props.add(key=CARD, value=card)
        write_atomic(path, graph.SerializeToString())

    def judged(self, model: EdgeModel, request: ExportRequest) -> EdgeModel:
        """TensorRT fuses what stands between products as it likes: the plan is compared with products alone."""
        if self._target != "tensorrt":
            return model
        free = [
            operator if operator.kernel in PRODUCTS else replace(operator, precision="index")
            for operator in model.operators
        ]
        return replace(model, operators=tuple(free))

    def run(self, path: str | os.PathLike[str], *, threads: int = 1) -> OnnxSession:
        """Open the file with ONNX Runtime."""
        return OnnxSession(path, threads=threads)


def _check_rules(path: Path) -> None:
    broken = [row for row in check_tensorrt(path).select("rule") if str(row.value).startswith("broken")]
    if broken:
        raise ExportError(
            f"Expected a file that obeys TensorRT's rules. Received: {'; '.join(f'{row.subject}: {row.value}' for row in broken)}. "
            "Give the layers of these operators float32 in the plan."
        )
