"""The calibration method that suits a net: whichever gives the file whose answers are nearest to the model's."""

from keras_precision.core.environment import usable_cores
from keras_precision.core.errors import ExportError, FileFormatError
from keras_precision.core.system.optional import available
from keras_precision.export.candidate import read_back
from keras_precision.quantization.bias_correction import corrected
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.format_assignment import assigned_ranges
from keras_precision.quantization.post_training import Job, by_converter, by_quantizer
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
    """The net in int8, float at its sides."""
    source = calibration.float_file.content
    operators = read_back(source).operators
    formats = ["int8"] * len(operators)
    ranges = assigned_ranges(operators, formats, calibration.ranges(method), calibration.ranges("minmax"))
    job = Job(corrected(source, formats, calibration), formats, ranges, "float32")
    return by_quantizer(job) if available("ai_edge_quantizer") else by_converter(job)
