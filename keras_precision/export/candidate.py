"""Candidate: a quantized file before it is written, and the choice between two engines' files."""

from dataclasses import dataclass, replace

from keras_precision.core.errors import ExportError, FileFormatError
from keras_precision.core.system.optional import available
from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.export.readback import read_back
from keras_precision.export.request import ExportRequest
from keras_precision.quantization.bias_range import check_biases
from keras_precision.quantization.conversion import ConvertedFile
from keras_precision.quantization.foreign_ranges import foreign_ranges
from keras_precision.quantization.layer_trace import OperatorLayers, Trace, layers_of
from keras_precision.quantization.post_training import Engine, QuantizationJob
from keras_precision.runtimes.model_info import EdgeModel

__all__ = ["Candidate", "best_candidate", "plain_candidate", "read_back"]


@dataclass(frozen=True)
class Candidate:
    """A file that was loaded and run, and may be written.

    Attributes:
        content: Its content.
        model: Its inputs, outputs and operators.
        trace: The graph that was converted.
        layers: Per operator, the layers that it computes.
        engine: The quantizer or converter that wrote it.
        notes: What a reader should know.
        foreign_ranges: Number of activations whose range is none of the requested ones.
        equalized_pairs: As the float file has it.
    """

    content: bytes
    model: EdgeModel
    trace: Trace
    layers: OperatorLayers
    engine: str
    notes: tuple[str, ...] = ()
    foreign_ranges: int = 0
    equalized_pairs: int | None = None

    @property
    def float_operators(self) -> int:
        """Number of operators that compute in float."""
        return sum(operator.precision == "float32" for operator in self.model.operators)


def plain_candidate(converted: ConvertedFile, engine: str = "converter") -> Candidate:
    """Return a converter's file, loaded and run; raise where it does not run."""
    model = read_back(converted.content)
    layers = layers_of(model, converted.trace)
    check_biases(converted.content, layers)
    return Candidate(converted.content, model, converted.trace, layers, engine)


def best_candidate(compiler: PlanCompiler, request: ExportRequest) -> Candidate:
    """Return the file of the requested engine, or of the one that leaves fewer operators in float.

    Raises:
        PlanError: The plan gives two formats to layers that are one operator.
        ExportError: The engine failed; with ``"auto"``, every engine that can make such a file.
    """
    job = compiler.job(request.plan)
    convertible = {*job.formats, request.plan.default} <= {"int8", "float32"} and job.io != "int16"
    if request.engine == "converter":
        return _quantized(compiler, job, "converter")
    if request.engine == "auto" and convertible:
        if not available("ai_edge_quantizer"):
            return _quantized(compiler, job, "converter")
        return _fewest_floats(compiler, job)
    return _quantized(compiler, job, "aeq")


def _fewest_floats(compiler: PlanCompiler, job: QuantizationJob) -> Candidate:
    """The quantizer's file; the converter's where that has fewer operators in float, and the plan has even fewer."""
    try:
        first = _quantized(compiler, job, "aeq")
    except ExportError as error:
        second = _quantized(compiler, job, "converter")
        return replace(
            second, notes=(f"quantized by TFLiteConverter's quantizer, since AI Edge Quantizer failed: {error}",)
        )
    if first.float_operators <= sum(precision == "float32" for precision in job.formats):
        return first
    try:
        second = _quantized(compiler, job, "converter")
    except ExportError:
        return first
    return second if second.float_operators < first.float_operators else first


def _quantized(compiler: PlanCompiler, job: QuantizationJob, engine: Engine) -> Candidate:
    content = compiler.quantize(job, engine)
    try:
        candidate = plain_candidate(ConvertedFile(content, compiler.source.trace), engine)
    except FileFormatError as error:
        raise ExportError(
            f"Expected a quantized file that runs. Received: one that the runtime refuses ({error.__cause__ or error}). Ranges of activations that do "
            "not go with the weights are a cause: train on with a smaller learning rate, or look for weights that have grown "
            "beyond all measure."
        ) from error
    foreign = len(foreign_ranges(content, job.ranges))
    return replace(candidate, foreign_ranges=foreign, equalized_pairs=compiler.source.equalized_pairs)
