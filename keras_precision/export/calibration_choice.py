"""The calibration method of a model: the one whose int8 file diverges least from the float file."""

from keras_precision.core.environment import usable_cores
from keras_precision.core.errors import ExportError, FileFormatError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.system.optional import available
from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.range_estimators import AUTO
from keras_precision.runtimes.tflite.in_memory import predict_in_memory
from keras_precision.scoring.divergence import mean_divergence, output_kind

__all__ = ["TRIED", "method_of"]

TRIED = ("mse", "minmax")
"""The methods that are compared; the first is taken on a tie."""


def method_of(calibration: Calibration, method: str) -> str:
    """Return a method, or for ``"auto"`` the one whose int8 file diverges least on the samples in the calibration.

    It is decided once per calibration, for every plan.
    """
    if method != AUTO:
        return method
    if AUTO not in calibration.decided:
        calibration.decided[AUTO] = _least_divergent(calibration)
    return calibration.decided[AUTO]


def _least_divergent(calibration: Calibration) -> str:
    if not calibration.held:  # ranges that were trained, or a calibration of an older version
        return TRIED[0]
    samples, threads = calibration.held, usable_cores()
    try:
        files = {method: _file(calibration, method) for method in TRIED}
        reference = predict_in_memory(calibration.float_file.content, samples, threads)
        kinds = [output_kind(output) for output in reference]
        divergence = {
            method: mean_divergence(kinds, reference, predict_in_memory(content, samples, threads))
            for method, content in files.items()
        }
    except (ExportError, FileFormatError, RuntimeError, ValueError):  # the last two are the interpreter's own
        return TRIED[0]  # a model that is not quantized as a whole: the export of that plan says why
    return min(TRIED, key=divergence.__getitem__)


def _file(calibration: Calibration, method: str) -> bytes:
    """The model in int8, with float inputs and outputs."""
    compiler = PlanCompiler(calibration, method)
    job = compiler.job(PrecisionPlan.deployment("int8", io="float32"))
    return compiler.quantize(job, "aeq" if available("ai_edge_quantizer") else "converter")
