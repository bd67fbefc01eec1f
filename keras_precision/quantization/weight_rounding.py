"""Weights of a float file that are rounded so that its operators change least on samples."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import InputError
from keras_precision.core.formats.deployment import DEPLOYMENT_PRECISIONS
from keras_precision.core.system.progress import progress
from keras_precision.quantization.format_assignment import weight_precision
from keras_precision.quantization.layer_inputs import (
    BIAS,
    WeightedOperator,
    grouped_weights,
    input_rows,
    ungrouped_weights,
    weighted_operators,
)
from keras_precision.quantization.second_order_rounding import clipped_scales, compensating_weights, round_weights
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer, QuantizedConstant, parse_flatbuffer

__all__ = ["ROUNDINGS", "Layer", "RoundedWeights", "Rounding", "WeightRounding", "check_rounding", "round_all_weights"]

Array = npt.NDArray[Any]

Rounding = Literal["auto", "nearest", "gptq"]
ROUNDINGS: tuple[str, ...] = get_args(Rounding)

_INPUTS = 1024
"""Whose second moments are considered together: a matrix for the thousands of a dense layer would be vast."""
_DAMPING = 0.05  # of the mean variance of the inputs, added to each, so that few samples are not followed to the letter


class RoundedWeights(NamedTuple):
    """The weights of an operator as integers.

    Attributes:
        constant: The integers and their scales, in the shape of the weights.
        shift: What rounding adds to the mean of each output channel, of shape (channels,).
    """

    constant: QuantizedConstant
    shift: Array


class WeightRounding(NamedTuple):
    """The rounded weights of all operators in one precision, by the number of the operator in the float file.

    Attributes:
        chained: For inputs that all operators before have already changed, whose errors are made up for, too.
        alone: For the inputs that the operator has in the float file.
    """

    chained: Mapping[int, RoundedWeights]
    alone: Mapping[int, RoundedWeights]

    def of(self, rounded: list[bool]) -> dict[int, RoundedWeights]:
        """Return the weights of those operators of a file that are rounded in it."""
        result, is_chained = {}, True
        for number, weights in sorted(self.alone.items()):
            if rounded[number]:
                result[number] = self.chained[number] if is_chained else weights
            else:
                is_chained = False
        return result


def check_rounding(rounding: str) -> None:
    """Raise InputError unless the value of ``rounding`` is known."""
    if rounding not in ROUNDINGS:
        raise InputError(f"Expected rounding to be one of {', '.join(ROUNDINGS)}. Received: {rounding!r}.")


def round_all_weights(content: bytes, samples: Mapping[str, Array], precision: str) -> WeightRounding:
    """Return the weights of all operators of a float file in one precision, rounded on samples.

    Args:
        content: The file.
        samples: Name of an input to samples of shape (n, ...).
        precision: A deployment precision.

    Returns:
        The weights, for files with all these operators in the precision, and with some of them.
    """
    graph, changed = parse_flatbuffer(content), Flatbuffer(content)
    groups = weighted_operators(graph)
    rows = input_rows(graph, [operator for group in groups for operator in group], samples)
    alone: dict[int, RoundedWeights] = {}
    chained: dict[int, RoundedWeights] = {}
    with progress("rounding weights", "layers", total=len(groups)) as advance:
        for group in groups:
            layer = Layer.of(graph, group[0], precision)
            exact = np.concatenate([next(rows) for _ in group], axis=1)
            weights = in_chain = layer.rounded(exact, exact)
            if len(group) == 1 and chained:  # calls of a shared layer have inputs that are changed differently
                operator = group[0]
                (inputs,) = input_rows(changed.before(operator.number, operator.source), group, samples)
                in_chain = layer.rounded(exact, inputs)
            alone.update((operator.number, weights) for operator in group)
            chained.update((operator.number, in_chain) for operator in group)
            _change(changed, group, in_chain)
            advance(1)
    return WeightRounding(chained, alone)


class Layer(NamedTuple):
    """The weights of an operator, and the largest integer for them."""

    kernel: str
    weights: Array
    largest: int

    @classmethod
    def of(cls, graph: Flatbuffer, operator: WeightedOperator, precision: str) -> "Layer":
        """Return the layer of an operator."""
        weights = graph.constant(operator.weights)
        assert weights is not None  # by the choice of operators
        largest = DEPLOYMENT_PRECISIONS[weight_precision(operator.kernel, precision)].largest_weight
        return cls(operator.kernel, weights, largest)

    def rounded(self, exact: Array, rows: Array) -> RoundedWeights:
        """Return integers with which the outputs for ``rows`` come nearest to those of the weights for ``exact``."""
        grouped = weights = grouped_weights(self.kernel, self.weights, len(exact)).astype(np.float64)
        blocks = [slice(start, start + _INPUTS) for start in range(0, weights.shape[2], _INPUTS)]
        moments = [_covariances(rows[..., block], rows[..., block]) for block in blocks]
        damping = [_damping(matrices) for matrices in moments]
        damped = [matrices + extra for matrices, extra in zip(moments, damping, strict=True)]
        if exact is not rows:
            crossed = (_covariances(exact[..., block], rows[..., block]) for block in blocks)
            parts = zip(blocks, crossed, damping, damped, strict=True)
            compensating = [
                compensating_weights(weights[..., block], matrices + extra, moment)
                for block, matrices, extra, moment in parts
            ]
            weights = np.concatenate(compensating, axis=2)
        scales = clipped_scales(weights, damped, self.largest)
        pairs = zip(blocks, damped, strict=True)
        rounded = [round_weights(weights[..., block], scales, moment, self.largest) for block, moment in pairs]
        integers = np.concatenate(rounded, axis=2)
        before, after = (
            (table * inputs.mean(axis=1, dtype=np.float64)[:, None]).sum(axis=2).reshape(-1)
            for table, inputs in ((grouped, exact), (integers * scales[..., None], rows))
        )
        axis = self.weights.ndim - 1 if self.kernel == "DEPTHWISE_CONV_2D" else 0
        values = ungrouped_weights(self.kernel, integers, self.weights.shape)
        return RoundedWeights(QuantizedConstant(values, scales.reshape(-1), axis), after - before)


def _covariances(first: Array, second: Array) -> Array:
    """Return the covariances of the columns of tables of shape (groups, rows, inputs).

    Means are left out, since bias correction takes their errors out of the bias; before the products, whose rounding
    errors would be larger than small variances of large numbers.
    """
    left, right = (values - values.mean(axis=1, keepdims=True) for values in (first, second))
    return np.asarray((left.transpose(0, 2, 1) @ right).astype(np.float64) / first.shape[1])


def _damping(matrices: Array) -> Array:
    """Return what covariances need to have an inverse: inputs that never change get the mean variance of the others."""
    variances = np.diagonal(matrices, axis1=1, axis2=2)
    alive = variances > 0
    mean = variances.sum(axis=1, keepdims=True, where=alive) / np.maximum(alive.sum(axis=1, keepdims=True), 1)
    mean = np.where(mean > 0, mean, 1.0)
    return np.where(alive, _DAMPING * mean, mean)[..., None] * np.eye(variances.shape[1])


def _change(graph: Flatbuffer, group: Sequence[WeightedOperator], rounded: RoundedWeights) -> None:
    """Give operators their rounded weights, and those with a bias one that takes out the shift of the mean."""
    changed = [graph.operators[operator.number] for operator in group]
    graph.set_constant(graph.own_constant(changed, 1), rounded.constant.reals())
    for operator in changed:
        bias = graph.constant(int(operator.inputs[BIAS])) if len(operator.inputs) > BIAS else None
        if bias is not None:
            graph.set_constant(graph.own_constant([operator], BIAS), bias - rounded.shift.astype(np.float32))
