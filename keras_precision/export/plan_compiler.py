"""PlanCompiler: the quantized ``.tflite`` file of any plan of a model, in memory, as an export writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy.typing as npt

from keras_precision.core.environment import usable_cores
from keras_precision.core.errors import ExportError, FileFormatError
from keras_precision.core.formats.deployment import DEPLOYMENT_PRECISIONS
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.system.optional import available
from keras_precision.export.readback import read_back
from keras_precision.quantization.attention_masks import ClampedMasks, clamp_masks
from keras_precision.quantization.bias_correction import apply_bias_correction
from keras_precision.quantization.bias_range import check_biases
from keras_precision.quantization.byte_io import with_byte_io
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.conversion import ConvertedFile
from keras_precision.quantization.float_model import FloatFile
from keras_precision.quantization.foreign_ranges import foreign_ranges
from keras_precision.quantization.format_assignment import assign_formats, assign_ranges
from keras_precision.quantization.layer_trace import OperatorLayers, Trace, layers_of
from keras_precision.quantization.post_training import Engine, QuantizationJob, quantize_by_aeq, quantize_by_converter
from keras_precision.quantization.rounding_choice import RoundingChoice
from keras_precision.quantization.weight_rounding import RoundedWeights, Rounding
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer
from keras_precision.runtimes.tflite.in_memory import predict_in_memory
from keras_precision.scoring.divergence import mean_divergence, output_kind

__all__ = ["Candidate", "PlanCompiler", "plain_candidate"]

Array = npt.NDArray[Any]

_SLOW_STRIDE = 8  # of the samples for files in int16x8, whose kernels take ten times as long as those in int8

_ENGINES = MappingProxyType({"aeq": quantize_by_aeq, "converter": quantize_by_converter})


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


class _Treatment(NamedTuple):
    """How the weights and biases of a precision are prepared for the quantizer."""

    corrected: bool
    rounded: bool


class PlanCompiler:
    """Compiles plans to files: formats assigned, ranges chosen, biases corrected, operators quantized.

    Exports, the choice of a calibration method, searches and explanations all compile here, so that the file that is
    judged is the one that is exported. What does not depend on the plan is computed once.

    Args:
        measured: The calibration of a model; its float file alone, for plans that need no ranges.
        method: Method that chooses ranges.
        percentile: For the method of that name.
        bias_correction: Whether the mean error of quantized weights is subtracted from biases, where there is a calibration
            on whose samples that does not make the file worse.
        rounding: How weights are rounded: one of ``ROUNDINGS``.
        per_channel: Whether dense layers have one scale for each output.

    Attributes:
        source: The float file.
        method: As the argument.
        operators: The operators of the float file.
        layers: Per operator, the layers that it computes.
        paths: All layer paths of the model.
        rounding: Which weights are rounded by the second order; None without a calibration.
    """

    def __init__(
        self,
        measured: Calibration | FloatFile,
        method: str = "mse",
        *,
        percentile: float = 99.99,
        bias_correction: bool = True,
        rounding: Rounding = "auto",
        per_channel: bool = True,
    ) -> None:
        self._calibration = measured if isinstance(measured, Calibration) else None
        self.source = measured.float_file if isinstance(measured, Calibration) else measured
        float_model = read_back(self.source.content)
        self.operators = float_model.operators
        self.layers = layers_of(float_model, self.source.trace)
        self.paths = self.source.trace.paths
        self.method = method
        self._percentile = percentile
        self._bias_correction = bias_correction
        self._per_channel = per_channel
        self.rounding: RoundingChoice | None = None
        if self._calibration is not None:
            self.rounding = RoundingChoice(self._calibration, rounding)
            self._chosen = self._calibration.ranges(method, percentile=percentile)
            self._full = self._calibration.ranges("minmax")

    @property
    def float_content(self) -> bytes:
        """The content of the float file."""
        return self.source.content

    def __call__(self, plan: PrecisionPlan) -> bytes:
        """Return the file of a plan as an export writes it, without a card; errors are those of ``candidate``."""
        return self.candidate(plan).content

    def candidate(self, plan: PrecisionPlan, engine: str = "auto") -> Candidate:
        """Return the file of a plan by one engine, or with ``"auto"`` of the one that leaves fewer operators in float.

        Raises:
            PlanError: The plan gives two formats to layers that are one operator.
            ExportError: The engine failed; with ``"auto"``, every engine that can make such a file.
        """
        job = self.job(plan)
        if {*job.formats, job.io} == {"float32"}:
            return plain_candidate(ConvertedFile(self.float_content, self.source.trace))
        convertible = {*job.formats, plan.default} <= {"int8", "float32"} and job.io != "int16"
        if engine == "converter" or (engine == "auto" and convertible and not available("ai_edge_quantizer")):
            return self._quantized(job, "converter")
        return self._fewest_floats(job) if engine == "auto" and convertible else self._quantized(job, "aeq")

    def _fewest_floats(self, job: QuantizationJob) -> Candidate:
        """The quantizer's file; the converter's where that has fewer operators in float, and the plan has even fewer."""
        try:
            first = self._quantized(job, "aeq")
        except ExportError as error:
            second = self._quantized(job, "converter")
            note = f"quantized by TFLiteConverter's quantizer, since AI Edge Quantizer failed: {error}"
            return replace(second, notes=(*second.notes, note))
        if first.float_operators <= sum(precision == "float32" for precision in job.formats):
            return first
        try:
            second = self._quantized(job, "converter")
        except ExportError:
            return first
        return second if second.float_operators < first.float_operators else first

    def _quantized(self, job: QuantizationJob, engine: Engine) -> Candidate:
        content = self.quantize(job, engine)
        try:
            candidate = plain_candidate(ConvertedFile(content, self.source.trace), engine)
        except FileFormatError as error:
            raise ExportError(
                f"Expected a quantized file that runs. Received: one that the runtime refuses ({error.__cause__ or error}). Ranges of activations that do "
                "not go with the weights are a cause: train on with a smaller learning rate, or look for weights that have grown "
                "beyond all measure."
            ) from error
        foreign = len(foreign_ranges(content, job.ranges))
        return replace(candidate, notes=job.notes, foreign_ranges=foreign, equalized_pairs=self.source.equalized_pairs)

    def job(self, plan: PrecisionPlan) -> QuantizationJob:
        """Return what a quantizer is to do for a plan; raise where the plan gives one operator two formats."""
        formats = assign_formats(self.operators, self.layers, plan)
        job = self._job(formats, {precision: self._treatment(precision) for precision in {*formats}}, plan.io_type)
        graph = Flatbuffer(self.float_content)
        exact = ", ".join(graph.name(number) for number in graph.exact_inputs())
        if plan.io is not None or plan.io_type == "float32" or not exact:
            return job
        note = f"inputs and outputs stayed in float32, since the whole numbers of {exact} would be rounded"
        return replace(job, io="float32", notes=(*job.notes, note))

    def divergence(self, precision: str, *, corrected: bool, rounded: bool = False) -> float | None:
        """Return how far a file in one precision, with or without bias correction, diverges from the float file.

        It is the mean over the samples in the calibration, and measured once for them; where weights may be rounded on
        them, over those on which they are not. None without samples, and where there is no such file: the export of a
        plan says why.
        """
        calibration = self._calibration
        if calibration is None or self.rounding is None or not calibration.held:
            return None
        numbers = self.rounding.judging_samples(precision)
        key = (precision, self.method, self._percentile, len(numbers), corrected, rounded, self._per_channel)
        if key not in calibration.divergences:
            numbers = numbers[:: _SLOW_STRIDE if precision == "int16x8" else 1]
            treatment = _Treatment(corrected, rounded)
            calibration.divergences[key] = self._measured_divergence(calibration, precision, numbers, treatment)
        return calibration.divergences[key]

    @staticmethod
    def quantize(job: QuantizationJob, engine: Engine) -> bytes:
        """Return the quantized file of a job."""
        if job.io == "uint8":
            return with_byte_io(_ENGINES[engine](replace(job, io="float32")))
        return _ENGINES[engine](job)

    def _job(self, formats: Sequence[str], treatments: Mapping[str, _Treatment], io: str) -> QuantizationJob:
        content = self.float_content
        if self._calibration is None or self.rounding is None:
            return QuantizationJob(content, formats, {}, io, per_channel=self._per_channel)
        weights: dict[int, RoundedWeights] = {}
        for precision, treatment in treatments.items():
            if treatment.rounded:
                weights |= self.rounding.weights(precision).of([name == precision for name in formats])
        if not self._per_channel:
            weights = {
                number: rounded
                for number, rounded in weights.items()
                if self.operators[number].kernel != "FULLY_CONNECTED"
            }
        masks = clamp_masks(content, formats, self._calibration.seen)
        ranges = masks.clip(assign_ranges(self.operators, formats, self._chosen, self._full))
        content = masks.content
        if any(treatment.corrected for treatment in treatments.values()):
            to_correct = [precision if treatments[precision].corrected else "float32" for precision in formats]
            content = apply_bias_correction(
                content, to_correct, self._calibration, weights, per_channel=self._per_channel
            )
        chosen = {precision: treatment.rounded for precision, treatment in treatments.items()}
        notes = (*self._mask_notes(masks), *self.rounding.notes(chosen))
        return QuantizationJob(content, formats, ranges, io, notes, weights, self._per_channel)

    def _mask_notes(self, masks: ClampedMasks) -> tuple[str, ...]:
        owners = [(self.source.trace.path_of(name.split(";")[0]), name) for name in masks.clamped]
        layers = ", ".join(dict.fromkeys(f"layer '{path}'" if path else f"'{name}'" for path, name in owners))
        if not layers:
            return ()
        return (
            f"the mask before the softmax of {layers} was clamped: such large numbers would take the steps of all others",
        )

    def _treatment(self, precision: str) -> _Treatment:
        """How weights and biases of operators in a precision are treated: never so that a file in it is worse for it."""
        if self.rounding is None or not DEPLOYMENT_PRECISIONS[precision].needs_ranges:
            return _Treatment(corrected=False, rounded=False)
        corrects = self._bias_correction
        rounded = self.rounding.is_possible(precision) and (
            self.rounding.rounding == "gptq"
            or _is_no_worse(*(self.divergence(precision, corrected=corrects, rounded=way) for way in (True, False)))
        )
        ways = (self.divergence(precision, corrected=way, rounded=rounded) for way in (True, False)) if corrects else ()
        return _Treatment(corrects and _is_no_worse(*ways), rounded)

    def _measured_divergence(
        self, calibration: Calibration, precision: str, numbers: Array, treatment: _Treatment
    ) -> float | None:
        samples = {name: values[numbers] for name, values in calibration.held.items()}
        job = self._job([precision] * len(self.operators), {precision: treatment}, "float32")
        try:
            content = self.quantize(job, "aeq" if available("ai_edge_quantizer") else "converter")
            reference = [output[numbers] for output in calibration.predictions]
            outputs = predict_in_memory(content, samples, usable_cores())
        except (ExportError, FileFormatError, RuntimeError, ValueError):  # the last two are the interpreter's own
            return None
        return mean_divergence([output_kind(output) for output in reference], reference, outputs)


def _is_no_worse(divergence: float | None, other: float | None) -> bool:
    """Whether a file does not diverge more than another; None is that of a file that cannot be made."""
    return other is None or (divergence is not None and divergence <= other)
