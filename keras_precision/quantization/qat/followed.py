"""Which ranges of a file training follows: by a layer, or through a kernel that fixes or passes on a range."""

from collections.abc import Iterator, Mapping

from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.plan import PrecisionPlan
from keras_precision.quantization.float_model import FloatFile
from keras_precision.quantization.qat.placement import INPUT_SCALE, SAME_VALUES, quantized_activations
from keras_precision.quantization.range_estimators import FIXED_RANGES
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["unfollowed", "with_implied_ranges"]


def with_implied_ranges(content: bytes, known: Mapping[str, Range]) -> dict[str, Range]:
    """Return ranges of a float file together with those of tensors whose kernel fixes the range, or passes it on."""
    return {**dict(_implied_ranges(content, known)), **known}


def unfollowed(source: FloatFile, plan: PrecisionPlan, known: Mapping[str, Range]) -> list[str]:
    """Return the activations that the file of a plan quantizes in ranges that neither are known nor follow from known ones."""
    ranges = with_implied_ranges(source.content, known)
    return [name for name in quantized_activations(source, plan) if name not in ranges]


def _implied_ranges(content: bytes, known: Mapping[str, Range]) -> Iterator[tuple[str, Range]]:
    graph = Flatbuffer(content)
    ranges = dict(known)
    for operator in graph.operators:
        kernel = graph.kernel(operator)
        inherits = (kernel in SAME_VALUES or kernel in INPUT_SCALE) and len(operator.inputs)
        implied = FIXED_RANGES.get(kernel, _range_of(graph, int(operator.inputs[0]), ranges) if inherits else None)
        if implied is None:
            continue
        for number in operator.outputs:
            name = graph.name(int(number))
            if name not in ranges:
                ranges[name] = implied
                yield name, implied


def _range_of(graph: Flatbuffer, tensor: int, ranges: Mapping[str, Range]) -> Range | None:
    """Return the range of a tensor where it is known, as that of a constant is, such as the table of an embedding."""
    constant = graph.constant(tensor)
    if constant is not None:
        return min(float(constant.min()), 0.0), max(float(constant.max()), 0.0)
    return ranges.get(graph.name(tensor)) if tensor >= 0 else None
