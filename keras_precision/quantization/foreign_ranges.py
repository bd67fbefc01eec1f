"""Uncalibrated scales: activations of a quantized file whose scale does not follow from the requested ranges."""

from collections.abc import Iterator, Mapping

from keras_precision.core.formats.affine_integers import Range
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["foreign_ranges"]

# Outputs of LOGISTIC, SOFTMAX, TANH and L2_NORMALIZATION have fixed scales:
# https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec.
_FIXED_SCALES = (1 / 256, 1 / 128, 1 / 32768, 16 / 256)
_TOLERANCE = 2e-3


def foreign_ranges(content: bytes, ranges: Mapping[str, Range]) -> list[str]:
    """Return the names of activations of a quantized file whose scale follows from the range of no tensor.

    Operators such as a concatenation force their operands to one scale, so the range of any tensor counts.
    """
    known = sorted({*_FIXED_SCALES, *(scale for bounds in ranges.values() for scale in _scales(bounds))})
    return [name for name, (scale, _) in Flatbuffer(content).scales().items() if not _among(scale, known)]


def _scales(bounds: Range) -> Iterator[float]:
    """Yield the scales of a range in int8, with 255 steps, and in int16, with 32767 on the wider side."""
    low, high = bounds
    yield (high - low) / 255
    yield max(high, -low) / 32767


def _among(scale: float, known: list[float]) -> bool:
    return any(abs(scale - other) <= _TOLERANCE * other for other in known)
