"""Candidate: a quantized file before it is written, and the choice between two engines' files."""

import functools
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_precision.core.errors import ExportError, FileFormatError
from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.system.files import write_whole
from keras_precision.core.system.optional import available
from keras_precision.export.request import Request
from keras_precision.quantization.bias_correction import corrected
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.conversion import Converted
from keras_precision.quantization.fidelity import check_faithful
from keras_precision.quantization.float_model import FloatFile, float_file
from keras_precision.quantization.foreign_ranges import foreign_ranges
from keras_precision.quantization.format_assignment import assigned, assigned_ranges
from keras_precision.quantization.layer_trace import Layers, Trace, layers_of
from keras_precision.quantization.post_training import Job, by_converter, by_quantizer
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.runtimes.tflite.file import inspect

__all__ = ["Candidate", "best_candidate", "plain_candidate"]


@dataclass(frozen=True)
class Candidate:
    """A file that was loaded and run, and may be written.

    Attributes:
        content: Its content.
        model: What it holds.
        trace: The graph that it was made from.
        layers: The layers that each of its operators computes.
        engine: What made it.
        notes: What a reader should know.
        foreign_ranges: Activations whose range is none of those that were asked for.
        equalized_pairs: As the float file has it.
    """

    content: bytes
    model: EdgeModel
    trace: Trace
    layers: Layers
    engine: str
    notes: tuple[str, ...] = ()
    foreign_ranges: int = 0
    equalized_pairs: int | None = None

    @property
    def islands(self) -> int:
        """How many operators compute in float."""
        return sum(operator.precision == "float32" for operator in self.model.operators)


def plain_candidate(converted: Converted, engine: str = "converter") -> Candidate:
    """Return what a converter wrote, read back.

    Args:
        converted: The file, and the graph that it was made from.
        engine: What made it.

    Returns:
        The candidate.

    Raises:
        FileFormatError: The file does not load and run.
    """
    model = read_back(converted.content)
    return Candidate(converted.content, model, converted.trace, layers_of(model, converted.trace), engine)


def best_candidate(model: Any, request: Request, calibration: Calibration | None) -> Candidate:
    """Quantize a model by an engine, or by whichever leaves fewer operators in float.

    Args:
        model: The model.
        request: What is asked for.
        calibration: What its activations look like; None where no layer needs it.

    Returns:
        The candidate.

    Raises:
        PlanError: The plan wants two formats for layers that are one operator.
        ExportError: The engine failed; with ``"auto"``, every engine that can make such a file.
    """
    source = calibration.float_file if calibration is not None else _faithful_file(model, request)
    plain = read_back(source.content)
    formats = assigned(plain.operators, layers_of(plain, source.trace), request.plan)
    content = source.content
    if calibration is not None and request.bias_correction:
        content = corrected(content, formats, calibration)
    job = Job(content, formats, _ranges(plain, formats, calibration, request), request.io)
    convertible = {*formats, request.plan.default} <= {"int8", "float32"} and request.io != "int16"
    wanted = request.engine
    if wanted == "auto" and not available("ai_edge_quantizer") and convertible:
        wanted = "converter"
    if wanted != "auto":
        return _made(job, source, wanted)
    return _chosen(job, source) if convertible else _made(job, source, "aeq")


def _faithful_file(model: Any, request: Request) -> FloatFile:
    source = float_file(model, equalize=request.cross_layer_equalization)
    check_faithful(model, source.content)
    return source


def _chosen(job: Job, source: FloatFile) -> Candidate:
    """The quantizer's file; the converter's where that has fewer operators in float than wanted."""
    wanted = sum(precision == "float32" for precision in job.formats)
    try:
        first = _made(job, source, "aeq")
    except ExportError as error:
        second = _made(job, source, "converter")
        return replace(second, notes=(f"made by TFLiteConverter's quantizer, since AI Edge Quantizer failed: {error}",))
    if first.islands <= wanted:
        return first
    try:
        second = _made(job, source, "converter")
    except ExportError:
        return first
    return second if second.islands < first.islands else first


def _made(job: Job, source: FloatFile, engine: str) -> Candidate:
    content = by_quantizer(job) if engine == "aeq" else by_converter(job)
    try:
        made = plain_candidate(Converted(content, source.trace), engine)
    except FileFormatError as error:
        raise ExportError(
            f"Expected a quantized file that runs. Received: one that the runtime refuses ({error.__cause__ or error}). Ranges of activations that do "
            "not go with the weights are a cause: train on with a smaller learning rate, or look for weights that have grown "
            "beyond all measure."
        ) from error
    foreign = len(foreign_ranges(content, job.ranges))
    return replace(made, foreign_ranges=foreign, equalized_pairs=source.equalized_pairs)


def _ranges(
    plain: EdgeModel, formats: list[str], calibration: Calibration | None, request: Request
) -> dict[str, Range]:
    """The range of each activation; the full one where 16 bits leave no need to clip, or the kernel fixes it."""
    if calibration is None:
        return {}
    chosen = calibration.ranges(request.calibration, percentile=request.percentile)
    return assigned_ranges(plain.operators, formats, chosen, calibration.ranges("minmax"))


@functools.lru_cache(maxsize=8)  # the float file of a calibration, plan after plan
def read_back(content: bytes) -> EdgeModel:
    """Load and run what may be written.

    Args:
        content: A ``.tflite`` file.

    Returns:
        What it holds.

    Raises:
        FileFormatError: It does not load and run.
    """
    with tempfile.TemporaryDirectory() as folder:
        return inspect(write_whole(Path(folder) / "model.tflite", content))
