"""Where the scales of a quantized file come from: the ranges that were asked for, or somewhere else."""

from collections.abc import Iterator, Mapping

from keras_precision.core.formats.affine_integers import Range
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["foreign_ranges"]

# TensorFlow Lite's quantization specification fixes the outputs of LOGISTIC, SOFTMAX, TANH and L2_NORMALIZATION.
_FIXED = (1 / 256, 1 / 128, 1 / 32768, 16 / 256)
_TOLERANCE = 2e-3


def foreign_ranges(content: bytes, ranges: Mapping[str, Range]) -> list[str]:
    """Return the activations of a quantized file whose scale none of the given ranges explains.

    Operators such as a concatenation force their operands to one scale, so that a tensor may have
    that of another; a scale is foreign where no tensor's range gives it.

    Args:
        content: A quantized file.
        ranges: Name of a tensor of the float file to the range that was asked for.

    Returns:
        Names of tensors.
    """
    known = sorted({*_FIXED, *(scale for found in ranges.values() for scale in _scales(found))})
    return [name for name, (scale, _) in Flatbuffer(content).scales().items() if not _among(scale, known)]


def _scales(found: Range) -> Iterator[float]:
    """The steps that a range gives: 255 of int8, or 32767 of int16 on its wider side."""
    low, high = found
    yield (high - low) / 255
    yield max(high, -low) / 32767


def _among(scale: float, known: list[float]) -> bool:
    return any(abs(scale - each) <= _TOLERANCE * each for each in known)
