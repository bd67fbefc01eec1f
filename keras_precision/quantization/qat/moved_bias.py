"""Biases that the converter has moved through the next dense layer, moved back."""

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.quantization.float_model import FloatFile
from keras_precision.quantization.layer_inputs import BIAS
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["restore_biases"]

Array = npt.NDArray[Any]


def restore_biases(model: Any, source: FloatFile, trained: Set[str]) -> tuple[FloatFile, frozenset[str]]:
    """Return a float file with the biases of trained outputs in their own operators, and the tensors that this changes.

    TFLiteConverter writes ``W2 (W1 x + b1) + b2`` as ``W2 (W1 x) + (W2 b1 + b2)`` (``FuseAddAndFullyConnected`` in
    https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/compiler/mlir/lite/transforms/optimize_pass.cc).
    The tensor between the two is then not the output of the layer, whose range training has followed.
    """
    graph, layers = Flatbuffer(source.content), layer_paths(model)
    changed: set[str] = set()
    for operator in graph.operators:
        bias = _missing_bias(graph, operator, source, layers)
        way = None if bias is None else _way(graph, int(operator.outputs[0]))
        if bias is None or way is None or not way.tensors <= trained:
            continue
        graph.add_constant(operator, BIAS, bias)
        for reader in way.readers:
            number = graph.own_constant([reader], BIAS)
            weights, moved = graph.constant(int(reader.inputs[1])), graph.constant(number)
            assert weights is not None  # _is_dense has checked them
            assert moved is not None
            graph.set_constant(number, moved - weights @ bias)
        changed |= way.tensors
    return (replace(source, content=graph.content()) if changed else source), frozenset(changed)


class _Way(NamedTuple):
    """The tensors that a bias was moved past, by name, and the dense layers that it was moved into."""

    tensors: Set[str]
    readers: tuple[Any, ...]


def _missing_bias(graph: Flatbuffer, operator: Any, source: FloatFile, layers: Mapping[str, Any]) -> Array | None:
    """Return the bias of the dense layer that an operator computes without it."""
    if graph.kernel(operator) != "FULLY_CONNECTED" or (len(operator.inputs) > 2 and int(operator.inputs[2]) >= 0):
        return None
    parts = graph.name(int(operator.outputs[0])).split(";")
    layer: Any = layers.get(next((path for part in parts if (path := source.trace.path_of(part))), ""))
    bias = getattr(layer, "bias", None)
    if bias is None or tuple(bias.shape) != graph.shape(int(operator.outputs[0]))[-1:]:
        return None
    pairs = zip(layer.weights, layer.get_weights(), strict=True)
    values = next(array for variable, array in pairs if variable is bias)
    return np.asarray(values, np.float32) if np.any(values) else None


def _way(graph: Flatbuffer, tensor: int) -> _Way | None:
    """Return the way of a bias from a tensor, through sums, to dense layers; None where anything else reads it."""
    tensors, readers = {graph.name(tensor)}, []
    for operator in graph.operators:
        if tensor not in map(int, operator.inputs):
            continue
        if _is_dense(graph, operator, tensor):
            readers.append(operator)
        elif (further := _way_through_sum(graph, operator, tensor)) is not None:
            tensors |= further.tensors
            readers += further.readers
        else:
            return None
    return _Way(tensors, tuple(readers)) if readers and tensor not in graph.outputs else None


def _way_through_sum(graph: Flatbuffer, operator: Any, tensor: int) -> _Way | None:
    output = int(operator.outputs[0])
    is_sum = graph.kernel(operator) == "ADD" and graph.fused(operator) == "NONE"
    once = [int(number) for number in operator.inputs].count(tensor) == 1
    return _way(graph, output) if is_sum and once and graph.shape(output) == graph.shape(tensor) else None


def _is_dense(graph: Flatbuffer, operator: Any, tensor: int) -> bool:
    return (
        graph.kernel(operator) == "FULLY_CONNECTED"
        and int(operator.inputs[0]) == tensor
        and len(operator.inputs) > 2
        and all(graph.constant(int(number)) is not None for number in operator.inputs[1:3])
        and graph.constant(int(operator.inputs[1])).shape[-1] == graph.shape(tensor)[-1]  # type: ignore[union-attr]
    )
