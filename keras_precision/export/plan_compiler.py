"""PlanCompiler: the quantized ``.tflite`` file of any plan of a model, in memory and in milliseconds."""

from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

from keras_precision.core.environment import usable_cores
from keras_precision.core.errors import ExportError, FileFormatError
from keras_precision.core.formats.deployment import DEPLOYMENT_PRECISIONS
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.system.optional import available
from keras_precision.export.readback import read_back
from keras_precision.quantization.bias_correction import apply_bias_correction
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.float_model import FloatFile
from keras_precision.quantization.format_assignment import assign_formats, assign_ranges
from keras_precision.quantization.layer_trace import layers_of
from keras_precision.quantization.post_training import Engine, QuantizationJob, quantize_by_aeq, quantize_by_converter
from keras_precision.runtimes.tflite.in_memory import predict_in_memory
from keras_precision.scoring.divergence import mean_divergence, output_kind

__all__ = ["PlanCompiler"]

Array = npt.NDArray[Any]

_SLOW_STRIDE = 8  # of the samples for files in int16x8, whose kernels take ten times as long as those in int8

_ENGINES = MappingProxyType({"aeq": quantize_by_aeq, "converter": quantize_by_converter})


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

    Attributes:
        source: The float file.
        method: As the argument.
        operators: The operators of the float file.
        layers: Per operator, the layers that it computes.
        paths: All layer paths of the model.
    """

    def __init__(
        self,
        measured: Calibration | FloatFile,
        method: str = "mse",
        *,
        percentile: float = 99.99,
        bias_correction: bool = True,
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
        if self._calibration is not None:
            self._chosen = self._calibration.ranges(method, percentile=percentile)
            self._full = self._calibration.ranges("minmax")

    @property
    def float_content(self) -> bytes:
        """The content of the float file."""
        return self.source.content

    def __call__(self, plan: PrecisionPlan) -> bytes:
        """Return the file of a plan for one sample, by AI Edge Quantizer, without a card.

        Raises:
            PlanError: The plan gives two formats to layers that are one operator.
            ExportError: The quantizer failed.
        """
        job = self.job(plan)
        return self.float_content if set(job.formats) == {"float32"} else self.quantize(job, "aeq")

    def job(self, plan: PrecisionPlan) -> QuantizationJob:
        """Return what a quantizer is to do for a plan; raise where the plan gives one operator two formats."""
        formats = assign_formats(self.operators, self.layers, plan)
        corrected = {precision for precision in {*formats} if self._is_corrected(precision)}
        return self._job(formats, corrected, plan.io_type)

    def divergence(self, precision: str, *, corrected: bool) -> float | None:
        """Return how far a file in one precision, with or without bias correction, diverges from the float file.

        It is the mean over the samples in the calibration, and measured once for them; None without samples, and where
        there is no such file: the export of a plan says why.
        """
        calibration = self._calibration
        if calibration is None or not calibration.held:
            return None
        key = (precision, self.method, self._percentile, corrected)
        if key not in calibration.divergences:
            calibration.divergences[key] = self._measured_divergence(precision, calibration.held, corrected=corrected)
        return calibration.divergences[key]

    @staticmethod
    def quantize(job: QuantizationJob, engine: Engine) -> bytes:
        """Return the quantized file of a job."""
        return _ENGINES[engine](job)

    def _job(self, formats: Sequence[str], corrected: Container[str], io: str) -> QuantizationJob:
        content = self.float_content
        if self._calibration is None:
            return QuantizationJob(content, formats, {}, io)
        ranges = assign_ranges(self.operators, formats, self._chosen, self._full)
        if corrected:
            masked = [precision if precision in corrected else "float32" for precision in formats]
            content = apply_bias_correction(content, masked, self._calibration)
        return QuantizationJob(content, formats, ranges, io)

    def _is_corrected(self, precision: str) -> bool:
        """Whether biases of operators in a precision are corrected: not where that makes a file in it worse."""
        if not self._bias_correction or self._calibration is None or not DEPLOYMENT_PRECISIONS[precision].needs_ranges:
            return False
        without, corrected = (self.divergence(precision, corrected=value) for value in (False, True))
        return without is None or corrected is None or corrected <= without

    def _measured_divergence(self, precision: str, held: Mapping[str, Array], *, corrected: bool) -> float | None:
        stride = _SLOW_STRIDE if precision == "int16x8" else 1
        samples = {name: values[::stride] for name, values in held.items()}
        job = self._job([precision] * len(self.operators), {precision} if corrected else (), "float32")
        try:
            content = self.quantize(job, "aeq" if available("ai_edge_quantizer") else "converter")
            reference, outputs = (
                predict_in_memory(file, samples, usable_cores()) for file in (self.float_content, content)
            )
        except (ExportError, FileFormatError, RuntimeError, ValueError):  # the last two are the interpreter's own
            return None
        return mean_divergence([output_kind(output) for output in reference], reference, outputs)
