"""Attention masks: constants far below what a softmax shows, clamped so that they take no steps from what it does show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_precision.core.formats.affine_integers import Range
from keras_precision.quantization.tensor_statistics import TensorStatistics
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer, parse_flatbuffer

__all__ = ["ClampedMasks", "clamp_masks"]

Array = npt.NDArray[Any]

_MASKED = 1e4
"""No score of attention is of this magnitude; masks are -1e9, -3e4 (float16) or close to the lowest float."""
_INVISIBLE = 16.0
"""exp(-16) is a two-hundredth of a step of a softmax in 16 bits: a value so far below the largest of its row is 0."""

_SAME_VALUES = ("RESHAPE", "TRANSPOSE", "EXPAND_DIMS", "SQUEEZE")
_MASKING = (*_SAME_VALUES, "ADD", "SUB", "MUL", "SELECT", "SELECT_V2", "BROADCAST_TO")
"""Kernels between the constant of a mask and a softmax."""
_IN_FLOAT = ("float32", "float16", "int8_dynamic")


class ClampedMasks(NamedTuple):
    """A float file with clamped masks.

    Attributes:
        content: The file.
        limits: Name of an activation that holds masked values to the range beyond which it is not to reach.
        clamped: The tensors in front of softmaxes, by name, of which masks were clamped.
    """

    content: bytes
    limits: Mapping[str, Range]
    clamped: tuple[str, ...] = ()

    def clip(self, ranges: Mapping[str, Range]) -> dict[str, Range]:
        """Return ranges within the limits."""
        return {
            name: (max(low, limit[0]), min(high, limit[1])) if (limit := self.limits.get(name)) else (low, high)
            for name, (low, high) in ranges.items()
        }


def clamp_masks(content: bytes, formats: Sequence[str], seen: Mapping[str, TensorStatistics]) -> ClampedMasks:
    """Return a float file whose masks reach no farther than they must, for the formats of its operators.

    A mask adds -1e9 to scores, or puts it in their place, so that a softmax makes zeros of them. In integers the scores
    would share one scale with that number: in 16 bits all that are not masked become equal, and some kernels abort
    on scales that differ so much. Every value that is ``_INVISIBLE`` below the largest of its row becomes 0 in 16 bits,
    too, and so will do as mask; it comes from the rows that the calibration has sampled. Where masked values go
    anywhere else than into a softmax in integers, nothing is clamped.
    """
    if not _masks(parse_flatbuffer(content), formats, seen).softmaxes:  # most files, which are not parsed again
        return ClampedMasks(content, {})
    graph = Flatbuffer(content)
    masks = _masks(graph, formats, seen)
    if masks.are_read_elsewhere():
        return ClampedMasks(content, {})
    reach = max(max(high, 0.0) - low for low, high in masks.softmaxes.values())
    for operator, position in masks.constants:
        number = graph.own_constant([operator], position)
        values = graph.constant(number)
        assert values is not None  # follow has seen it
        graph.set_constant(number, np.clip(values, -reach, reach))
    limits = {graph.name(number): (-reach, reach) for number in masks.tensors}
    limits |= {graph.name(number): bounds for number, bounds in masks.softmaxes.items()}
    return ClampedMasks(graph.content(), limits, tuple(graph.name(number) for number in masks.softmaxes))


def _masks(graph: Flatbuffer, formats: Sequence[str], seen: Mapping[str, TensorStatistics]) -> "_Masks":
    masks = _Masks(graph, formats, seen)
    for operator, precision in zip(graph.operators, formats, strict=True):
        if graph.kernel(operator) == "SOFTMAX" and precision not in _IN_FLOAT:
            masks.follow(int(operator.inputs[0]), operator)
    return masks


@dataclass
class _Masks:
    """The part of a graph that masked values pass through.

    Attributes:
        graph: The float file.
        formats: The precision of every operator.
        seen: The statistics of its activations.
        softmaxes: The inputs of softmaxes, to the range of what these show.
        tensors: All activations with masked values.
        readers: The operators that may read them.
        constants: Operators and positions of operands that are masks.
    """

    graph: Flatbuffer
    formats: Sequence[str]
    seen: Mapping[str, TensorStatistics]
    softmaxes: dict[int, Range] = field(default_factory=dict)
    tensors: set[int] = field(default_factory=set)
    readers: set[int] = field(default_factory=set)
    constants: list[tuple[Any, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._writers = {
            int(output): (operator, precision)
            for operator, precision in zip(self.graph.operators, self.formats, strict=True)
            for output in operator.outputs
        }

    def follow(self, tensor: int, softmax: Any) -> None:
        """Follow the masked values in front of a softmax back to their constants."""
        shown = self._shown(tensor)
        if shown is None or not self._is_masked(tensor):
            return
        self.readers.add(id(softmax))
        self.softmaxes[tensor] = shown
        self._follow(tensor)

    def are_read_elsewhere(self) -> bool:
        """Whether anything else than the operators on the way to a softmax reads masked values."""
        return any(number in self.tensors for number in self.graph.outputs) or any(
            int(number) in self.tensors and id(operator) not in self.readers
            for operator in self.graph.operators
            for number in operator.inputs
        )

    def _follow(self, tensor: int) -> None:
        self.tensors.add(tensor)
        operator, precision = self._writers.get(tensor, (None, "float32"))
        if operator is None or precision in _IN_FLOAT or self.graph.kernel(operator) not in _MASKING:
            return  # an input of the model, or scores of such a magnitude: their range is clipped
        if id(operator) in self.readers:
            return
        self.readers.add(id(operator))
        for position, number in enumerate(map(int, operator.inputs)):
            values = self.graph.constant(number)
            if values is not None and np.abs(values).max(initial=0) >= _MASKED:
                self.constants.append((operator, position))
            elif values is None and self._is_masked(number):
                if tensor in self.softmaxes and self.graph.kernel(operator) in _SAME_VALUES:
                    self.softmaxes[number] = self.softmaxes[tensor]
                self._follow(number)

    def _is_masked(self, tensor: int) -> bool:
        statistics = self.seen.get(self.graph.name(tensor)) if tensor >= 0 else None
        return statistics is not None and max(-statistics.values.minimum, statistics.values.maximum) >= _MASKED

    def _shown(self, tensor: int) -> Range | None:
        """Return the range of the values that a softmax shows; None where no row has any, or has been sampled."""
        statistics = self.seen.get(self.graph.name(tensor))
        if statistics is None or statistics.samples is None:
            return None
        rows = statistics.samples.rows
        largest = rows.max(axis=1)
        largest = largest[np.abs(largest) < _MASKED]  # the others are masked as a whole
        if not largest.size:
            return None
        return float(largest.min()) - _INVISIBLE, float(largest.max())
