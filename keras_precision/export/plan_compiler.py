"""PlanCompiler: the quantized ``.tflite`` file of any plan of a model, in memory and in milliseconds."""

from types import MappingProxyType

from keras_precision.core.plan import PrecisionPlan
from keras_precision.export.readback import read_back
from keras_precision.quantization.bias_correction import apply_bias_correction
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.float_model import FloatFile
from keras_precision.quantization.format_assignment import assign_formats, assign_ranges
from keras_precision.quantization.layer_trace import layers_of
from keras_precision.quantization.post_training import Engine, QuantizationJob, quantize_by_aeq, quantize_by_converter

__all__ = ["PlanCompiler"]

_ENGINES = MappingProxyType({"aeq": quantize_by_aeq, "converter": quantize_by_converter})


class PlanCompiler:
    """Compiles plans to files: formats assigned, ranges chosen, biases corrected, operators quantized.

    Exports, the choice of a calibration method, searches and explanations all compile here, so that the file that is
    judged is the one that is exported. What does not depend on the plan is computed once.

    Args:
        measured: The calibration of a model; its float file alone, for plans that need no ranges.
        method: Method that chooses ranges.
        percentile: For the method of that name.
        bias_correction: Whether the mean error of quantized weights is subtracted from biases, where there is a calibration.

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
        if self._calibration is None:
            return QuantizationJob(self.float_content, formats, {}, plan.io_type)
        ranges = assign_ranges(self.operators, formats, self._chosen, self._full)
        content = self.float_content
        if self._bias_correction:
            content = apply_bias_correction(content, formats, self._calibration)
        return QuantizationJob(content, formats, ranges, plan.io_type)

    @staticmethod
    def quantize(job: QuantizationJob, engine: Engine) -> bytes:
        """Return the quantized file of a job."""
        return _ENGINES[engine](job)
