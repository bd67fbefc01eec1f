"""export_tflite: a Keras model as a TensorFlow Lite file that was read back and run."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from keras_precision._adapters.model_view import ModelView
from keras_precision.core.environment import usable_cores
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.optional import available
from keras_precision.export.card import tflite_rows
from keras_precision.export.checks.tflm import arena_bytes
from keras_precision.export.pipeline import export_file
from keras_precision.export.plan_compiler import Candidate, PlanCompiler, plain_candidate
from keras_precision.export.readback import read_back
from keras_precision.export.request import ExportRequest, needs_ranges
from keras_precision.export.toolchain import ExportedFile, ExportJob, Toolchain
from keras_precision.quantization.byte_io import with_byte_io
from keras_precision.quantization.conversion import ConvertedFile
from keras_precision.quantization.fidelity import check_equivalence
from keras_precision.quantization.float_model import FloatFile, convert_to_float_tflite, float_file, weights_digest
from keras_precision.quantization.layer_trace import OperatorLayers
from keras_precision.runtimes.model_info import CARD, EdgeModel
from keras_precision.runtimes.tflite.file import runtime as installed_runtime
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer
from keras_precision.runtimes.tflite.in_memory import predict_in_memory
from keras_precision.runtimes.tflite.session import Session

__all__ = ["TfliteToolchain", "export_tflite"]

Array = npt.NDArray[Any]


def export_tflite(
    model: Any,
    path: str | os.PathLike[str],
    plan: str | PrecisionPlan | None = None,
    representative_dataset: Any = None,
    *,
    calibration: str = "auto",
    percentile: float = 99.99,
    bias_correction: bool = True,
    rounding: Literal["auto", "nearest", "gptq"] = "auto",
    cross_layer_equalization: bool = False,
    per_channel: bool | None = None,
    engine: Literal["auto", "aeq", "converter"] = "auto",
    runtime: Literal["litert", "tflite-runtime", "tflm"] = "litert",
    io: Literal["int8", "uint8", "int16", "float32"] | None = None,
    validation_data: Any = None,
    strict: bool = False,
    input_signature: Any = None,
    overwrite: bool = True,
) -> Result:
    """Write a model as a ``.tflite`` file, read it back, and run it.

    The file takes one sample at a time: a free batch axis costs shape arithmetic at run time. A
    model in mixed precision is exported from its float32 weights, one of the JAX or PyTorch
    backend in a process of its own that runs Keras on TensorFlow.

    Args:
        model: A built model of tf_keras, or of Keras 3 on any backend; a subclassed one must have been called.
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
            or ``"auto"``: of the first two the one whose int8 file agrees more with the model,
            on up to 256 of the samples. Those of int16 are always the full ones.
        percentile: For that method: the share of values, in percent, on the inner side of either end of the range.
        bias_correction: Take the mean error of quantized weights out of biases, unless the file then diverges more
            from the model on the samples in the calibration.
        rounding: How weights become integers: ``"nearest"``, each to the nearest; ``"gptq"``, so that later weights
            of a layer make up for the error of earlier ones on the samples in the calibration (GPTQ, E. Frantar and
            others, 2022); or ``"auto"``: the better of the two for weights of 4 bits, judged on every fourth sample, on
            which no weight is rounded, and ``"nearest"`` for those of 8.
        cross_layer_equalization: Scale channels between layers so that their weights reach alike on both
            sides. A calibration must have it, and brings it along.
        per_channel: Whether dense layers have one scale for each output, as convolutions do in any case. None: yes, but
            with ``runtime="tflm"`` what takes the smaller arena there, which a note gives for both.
        engine: ``"aeq"`` (AI Edge Quantizer), ``"converter"`` (the quantizer of TFLiteConverter,
            int8 and float32 alone), or ``"auto"``: whichever leaves less in float.
        runtime: What the file is to run on. It is run on LiteRT in any case.
        io: Element type of inputs and outputs, ``"uint8"`` for cameras; None: that of the plan, or of its activations.
        validation_data: ``(samples, labels)``, or a dataset of such batches: adds the file's accuracy, and its
            agreement with the model, to the result and to the card inside the file.
        strict: Raise for every operator that is not in the plan's default, not for named layers alone.
        input_signature: The sizes of inputs that the model leaves free, as ``Model.export`` of Keras takes them, such as
            ``[keras.InputSpec(shape=(1, 128), dtype="int32")]``. None: those of the data.
        overwrite: Whether an older file at ``path`` may be replaced.

    Returns:
        The rows that docs/export.md lists; the plan that the file realises; notes that name the
        layers that stayed in float.

    Raises:
        PrecisionError: The kinds that docs/export.md lists, with what to do.

    Example:
        >>> result = export_tflite(model, "model.tflite", "int8", representative_dataset=x_cal)
        >>> result.value("operator_count", "FULLY_CONNECTED int8")
        2
    """
    return export_file(
        TfliteToolchain(), model, path, plan, representative_dataset, io=io, calibration=calibration, percentile=percentile,
        bias_correction=bias_correction, rounding=rounding, cross_layer_equalization=cross_layer_equalization,
        per_channel=per_channel, engine=engine, runtime=runtime, strict=strict, validation_data=validation_data,
        input_signature=input_signature, overwrite=overwrite,
    )  # fmt: skip


def _candidate(job: ExportJob) -> Candidate:
    """Return the file of a request, with one scale for each output of a dense layer unless that costs arena on its runtime."""
    request = job.request
    per_channel = _compiled(job, per_channel=request.per_channel is not False)
    is_dense = any(
        operator.kernel == "FULLY_CONNECTED" and operator.weights for operator in per_channel.model.operators
    )
    chooses = request.per_channel is None and request.runtime == "tflm" and needs_ranges(request.plan) and is_dense
    if not chooses:
        return per_channel
    if not available("tflite_micro"):
        note = "dense layers have one scale for each output; whether that costs arena was not measured, without tflite-micro"
        return replace(per_channel, notes=(*per_channel.notes, note))
    per_tensor = _compiled(job, per_channel=False)
    arenas = arena_bytes(per_channel.content), arena_bytes(per_tensor.content)
    if None in arenas:  # the checks of the pipeline, and kp.check_micro, say why
        return per_channel
    saves = arenas[1] < arenas[0]  # type: ignore[operator]
    chosen, way = (per_tensor, "one scale per tensor") if saves else (per_channel, "one scale for each output")
    note = f"dense layers have {way}: an arena of {arenas[1]:,} bytes per tensor, and of {arenas[0]:,} per output"
    return replace(chosen, notes=(*chosen.notes, note))


def _compiled(job: ExportJob, *, per_channel: bool) -> Candidate:
    request = job.request
    compiler = PlanCompiler(
        job.calibration or job.source,
        request.calibration,
        percentile=request.percentile,
        bias_correction=request.bias_correction,
        rounding=request.rounding,
        per_channel=per_channel,
    )
    return compiler.candidate(request.plan, request.engine)


class TfliteToolchain(Toolchain):
    """``.tflite`` files on LiteRT, or on another interpreter that is installed."""

    name, suffix = "tflite", ".tflite"
    equalizes = True
    exports_tfmot = True
    integer_io = True

    def mixes(self, precisions: set[str]) -> bool:
        """Every precision may stand beside every other."""
        return True

    def require(self) -> None:
        """Raise unless there is an interpreter."""
        installed_runtime()

    def uses_calibration(self, view: ModelView, request: ExportRequest) -> bool:
        """Files that the converter alone makes have no use for one."""
        return not (request.plain or view.is_tfmot)

    def float_source(self, view: ModelView, request: ExportRequest) -> FloatFile:
        """Return the converter's file: in float, or what TensorFlow Model Optimization trained."""
        if self.uses_calibration(view, request):
            source = float_file(view, equalize=request.cross_layer_equalization)
        elif request.plain:
            converted = convert_to_float_tflite(view, "float16" if request.plan.default == "float16" else "float32")
            source = FloatFile(converted.content, converted.trace, weights_digest(view.model))
        else:
            from keras_precision.quantization.qat.tfmot_engine import convert_trained

            converted = convert_trained(view, float_io=request.plan.io_type != "int8")
            content = with_byte_io(converted.content) if request.plan.io_type == "uint8" else converted.content
            return FloatFile(content, converted.trace, weights_digest(view.model))
        check_equivalence(view, source.content)
        return source

    def export(self, job: ExportJob, path: Path) -> ExportedFile:
        """Write the converter's file, or that of the quantizer that leaves fewer operators in float."""
        request, source = job.request, job.source
        if self.uses_calibration(job.view, request):
            candidate = _candidate(job)
        else:
            engine = "tfmot" if job.view.is_tfmot else "converter"
            candidate = plain_candidate(ConvertedFile(source.content, source.trace), engine)
        path.write_bytes(candidate.content)
        notes, size, in_float = candidate.notes, len(candidate.content), len(source.content)
        if not request.plain and size > in_float:
            notes = (*notes, f"the {request.plan.default} file has {size} bytes, and one in float32 has {in_float}")
        return ExportedFile(notes, candidate.engine, candidate.foreign_ranges)

    def read_back(self, path: Path) -> EdgeModel:
        """Load the file, and run it once."""
        return read_back(path.read_bytes())

    def inscribe(self, path: Path, card: str) -> None:
        """Put the card into a metadata entry, which runtimes ignore."""
        graph = Flatbuffer(path.read_bytes())
        graph.set_metadata(CARD, card.encode())
        path.write_bytes(graph.content())

    def run(self, path: str | os.PathLike[str], *, threads: int = 1) -> Session:
        """Open the file with the interpreter that is installed."""
        return Session(path, threads=threads)

    def predict(self, path: Path, samples: Mapping[str, Array]) -> list[Array]:
        """Return the outputs of a file that was loaded before, in this process."""
        return predict_in_memory(path.read_bytes(), samples, usable_cores())

    def rows(
        self, subject: str, job: ExportJob, file: ExportedFile, model: EdgeModel, layers: OperatorLayers
    ) -> list[Measurement]:
        """Return how a file was produced, with the operators by layer."""
        return list(
            tflite_rows(
                subject, model, layers, calibration=job.calibration, method=job.request.calibration,
                engine=file.engine, foreign_ranges=file.foreign_ranges, equalized_pairs=job.source.equalized_pairs,
            )
        )  # fmt: skip

    def same_file(self, before: EdgeModel, after: EdgeModel) -> bool:
        """Operators are the same one by one; not every interpreter reads the card."""
        return before.operators == after.operators
