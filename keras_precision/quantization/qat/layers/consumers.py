"""What follows each layer in a model of Keras 3."""

import itertools
from collections.abc import Iterator
from typing import Any

import keras

from keras_precision._adapters import KerasAdapter
from keras_precision.quantization.qat.layers.rules.fused_activation import function_name

__all__ = ["Graph"]


class Graph:
    """Which layers read what another layer puts out, within one model each.

    Args:
        adapter: Keras 3.
        model: A functional or sequential model.
    """

    def __init__(self, adapter: KerasAdapter, model: Any) -> None:
        self._readers: dict[int, list[Any]] = {}
        self._uses: dict[int, int] = {}
        for each in _models(adapter, model):
            graph = getattr(each, "_functional", None) or each
            for node in itertools.chain.from_iterable(graph._nodes_by_depth.values()):
                self._uses[id(node.operation)] = self._uses.get(id(node.operation), 0) + 1
                for tensor in node.input_tensors:
                    self._readers.setdefault(id(tensor._keras_history.operation), []).append(node.operation)
            for tensor in graph.outputs:
                self._readers.setdefault(id(tensor._keras_history.operation), []).append(None)

    def fused_next(self, layer: Any) -> Any:
        """Return the one layer that reads another and may be part of the same integer kernel.

        Args:
            layer: The other layer.

        Returns:
            A batch normalization or an activation; None where another layer, or several, read it.
        """
        readers = self._readers.get(id(layer), [])
        if len(readers) != 1:
            return None
        (reader,) = readers
        fusable = isinstance(reader, keras.layers.BatchNormalization | keras.layers.ReLU) or (
            isinstance(reader, keras.layers.Activation) and function_name(reader.activation) in ("relu", "relu6")
        )
        return reader if fusable else None

    def uses(self, layer: Any) -> int:
        """Return how often a layer is called.

        Args:
            layer: The layer.

        Returns:
            The count.
        """
        return self._uses.get(id(layer), 1)

    def takes_several(self, layer: Any) -> bool:
        """Tell whether a layer is called with more than one tensor.

        Args:
            layer: The layer.

        Returns:
            True for those that merge.
        """
        return any(len(node.input_tensors) > 1 for node in layer._inbound_nodes)


def _models(adapter: KerasAdapter, model: Any) -> Iterator[Any]:
    """The model, and those inside it."""
    yield model
    for layer in model.layers:
        if isinstance(layer, adapter.functional_classes):
            yield from _models(adapter, layer)
