"""Biases that the converter has moved through the next dense layer, moved back."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.quantization.float_model import FloatFile
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["restore_biases"]

Array = npt.NDArray[Any]


def restore_biases(model: Any, source: FloatFile, trained: Container[str]) -> tuple[FloatFile, frozenset[str]]:
    """Return a float file with the biases of trained outputs in their own operators, and the tensors that this changes.

    TFLiteConverter writes ``W2 (W1 x + b1) + b2`` as ``W2 (W1 x) + (W2 b1 + b2)`` (``FuseAddAndFullyConnected`` in
    https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/compiler/mlir/lite/transforms/optimize_pass.cc).
    The tensor between the two is then not the output of the layer, whose range training has followed.
    """
    graph, layers = Flatbuffer(source.content), layer_paths(model)
    changed = set()
    for operator in graph.operators:
        bias = _missing_bias(graph, operator, source, layers)
        readers = [] if bias is None else list(_dense_readers(graph, int(operator.outputs[0])))
        name = graph.name(int(operator.outputs[0])) if readers else ""
        if bias is None or name not in trained:
            continue
        graph.add_bias(operator, bias)
        for reader in readers:
            number = graph.own_constant(reader, 2)
            weights, moved = graph.constant(int(reader.inputs[1])), graph.constant(number)
            assert weights is not None  # _dense_readers has checked them
            assert moved is not None
            graph.set_constant(number, moved - weights @ bias)
        changed.add(name)
    return (replace(source, content=graph.content()) if changed else source), frozenset(changed)


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


def _dense_readers(graph: Flatbuffer, tensor: int) -> Iterator[Any]:
    """Yield the operators that read a tensor, if they are dense layers with constants; else none."""
    readers = [operator for operator in graph.operators if tensor in map(int, operator.inputs)]
    if tensor not in graph.outputs and all(_is_dense(graph, reader, tensor) for reader in readers):
        yield from readers


def _is_dense(graph: Flatbuffer, operator: Any, tensor: int) -> bool:
    return (
        graph.kernel(operator) == "FULLY_CONNECTED"
        and int(operator.inputs[0]) == tensor
        and len(operator.inputs) > 2
        and all(graph.constant(int(number)) is not None for number in operator.inputs[1:3])
        and graph.constant(int(operator.inputs[1])).shape[-1] == graph.shape(tensor)[-1]  # type: ignore[union-attr]
    )
