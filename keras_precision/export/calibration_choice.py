"""The calibration method that suits a net: whichever gives the file whose answers are nearest to the model's."""

from keras_precision.core.environment import usable_cores
from keras_precision.core.errors import ExportError, FileFormatError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.system.optional import available
from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.range_estimators import AUTO
from keras_precision.runtimes.tflite.in_memory import answers
from keras_precision.scoring.divergence import kind_of, mean_divergence

__all__ = ["TRIED", "method_of"]

TRIED = ("mse", "minmax")
"""The methods that are tried; the first is taken where they cannot be told apart."""


def method_of(calibration: Calibration, wanted: str) -> str:
    """Return the method that is meant.

    Where that is left open, the net is made into int8 by each of ``TRIED``, and both files are run on
    the samples that the calibration has kept. The method is the one with the least divergence from
    the float file's answers. It is found once for a calibration, and serves every plan.

    Args:
        calibration: What the activations look like.
        wanted: A method, or ``"auto"``.

    Returns:
        A method.
    """
    if wanted != AUTO:
        return wanted
    if AUTO not in calibration.decided:
        calibration.decided[AUTO] = _nearest(calibration)
    return calibration.decided[AUTO]


def _nearest(calibration: Calibration) -> str:
    if not calibration.held:  # ranges that were trained, or a calibration of an older version
        return TRIED[0]
    threads = usable_cores()
    try:
        files = {method: _file(calibration, method) for method in TRIED}
        reference = answers(calibration.float_file.content, calibration.held, threads)
        kinds = [kind_of(each) for each in reference]
        apart = {
            method: mean_divergence(kinds, reference, answers(content, calibration.held, threads))
            for method, content in files.items()
        }
    except (ExportError, FileFormatError, RuntimeError, ValueError):  # the last two are the interpreter's own
        return TRIED[0]  # a net that is not quantized as a whole: the export says why, if it is asked to
    return min(TRIED, key=apart.__getitem__)


def _file(calibration: Calibration, method: str) -> bytes:
    """The model in int8, with float inputs and outputs."""
    compiler = PlanCompiler(calibration, method)
    job = compiler.job(PrecisionPlan.deployment("int8"), "float32")
    return compiler.quantize(job, "aeq" if available("ai_edge_quantizer") else "converter")
