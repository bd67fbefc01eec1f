"""Cross-layer equalization: the channels between two layers brought to one reach, and the net the same as before."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import InputError
from keras_precision.quantization.equalizable_pairs import LayerPair, layer_pairs
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["Equalized", "check_equalization", "equalized"]

Array = npt.NDArray[Any]

_SWEEPS = 20
_MOST = 8  # the largest exponent of two by which a channel is scaled in all: what is all but dead is not blown up


class Equalized(NamedTuple):
    """A float file whose channels were scaled.

    Attributes:
        content: The file.
        pairs: How many pairs of layers it has between which channels were scaled.
    """

    content: bytes
    pairs: int


def check_equalization(wanted: object) -> None:
    """Raise where the option has a value that it does not know.

    Args:
        wanted: What was passed.

    Raises:
        InputError: It is neither True nor False.
    """
    if not isinstance(wanted, bool):
        raise InputError(f"Expected cross_layer_equalization to be True or False. Received: {wanted!r}.")


def equalized(content: bytes) -> Equalized:
    """Return a float file that computes the same, with weights of a more even reach.

    Between two layers of weights W1 and W2, with f(s x) = s f(x) for s > 0 in between, channel i
    of the first and of its bias is divided by s_i, and what the second reads from it multiplied:
    ``W2 f(W1 x + b1) = W2 S f(S^-1 W1 x + S^-1 b1)``. With r1_i and r2_i the largest magnitudes of the
    channel's weights, ``s_i = r1_i / sqrt(r1_i r2_i)`` makes them equal (M. Nagel and others, Data-Free
    Quantization through Weight Equalization and Bias Correction, 2019, equation 11). Pairs share
    layers, so that all are gone through until nothing changes.

    Every s_i is rounded to a power of two: products and sums in float then keep all of their
    digits, and the file answers as before, bit for bit, unless a number leaves float32's range.

    Args:
        content: A float file.

    Returns:
        The file. A channel without weights on one side is left as it is, and none is scaled by more
        than 2^8.
    """
    graph = Flatbuffer(content)
    pairs = layer_pairs(graph)
    held = {number: _constant(graph, number) for pair in pairs for number in pair.constants}
    totals = {pair: np.zeros(pair.channels, int) for pair in pairs}
    for _ in range(_SWEEPS):
        changed = [_scale(held, pair, totals[pair]) for pair in pairs]
        if not any(changed):
            break
    scaled = [pair for pair, total in totals.items() if total.any()]
    for number in dict.fromkeys(number for pair in scaled for number in pair.constants):
        graph.set_constant(number, held[number])
    return Equalized(graph.content() if scaled else content, len(scaled))


def _constant(graph: Flatbuffer, tensor: int) -> Array:
    values = graph.constant(tensor)
    assert values is not None  # a pair is of constants
    return values


def _scale(held: dict[int, Array], pair: LayerPair, total: Array) -> bool:
    """Scale the channels of a pair, and count the exponents in ``total``; tell whether any channel was scaled."""
    first = _reach(held[pair.weights], pair.axis, pair.channels)
    wanted = total + _exponents(first, _reach(held[pair.readers], -1, pair.channels))
    exponents = np.clip(wanted, -_MOST, _MOST) - total
    total += exponents
    if not exponents.any():
        return False
    held[pair.weights] = _times(held[pair.weights], -exponents, pair.axis)
    if pair.bias >= 0:
        held[pair.bias] = _times(held[pair.bias], -exponents, -1)
    held[pair.readers] = _times(held[pair.readers], exponents, -1)
    return True


def _exponents(first: Array, second: Array) -> Array:
    """log2 s_i = (log2 r1_i - log2 r2_i) / 2, as integers; 0 for a dead channel."""
    alive = (first > 0) & (second > 0)
    ratio = np.divide(first, second, out=np.ones_like(first), where=alive)
    return np.rint(np.log2(ratio) / 2).astype(int)


def _reach(weights: Array, axis: int, channels: int) -> Array:
    """The largest magnitude of each channel."""
    table = np.moveaxis(np.abs(weights), axis, -1).reshape(-1, channels, weights.shape[axis] // channels)
    return np.asarray(table.max(axis=(0, 2)), np.float64)


def _times(values: Array, exponents: Array, axis: int) -> Array:
    """Multiply each channel by its power of two."""
    shape = [1] * values.ndim
    shape[axis] = values.shape[axis]
    each = np.repeat(exponents, values.shape[axis] // len(exponents))
    return np.asarray(np.ldexp(values, each.reshape(shape)), np.float32)
