"""LayerGraph: the producers and consumers of every layer in a model of Keras 3."""

import itertools
from collections.abc import Iterator
from typing import Any

import keras

from keras_precision._adapters import KerasAdapter
from keras_precision.quantization.qat.layers.rule_lookup import known_rule_of
from keras_precision.quantization.qat.layers.rules.fused_activation import function_name

__all__ = ["LayerGraph"]


class LayerGraph:
    """The producers, consumers and calls of every layer of a functional or sequential model, within its (nested) model."""

    def __init__(self, adapter: KerasAdapter, model: Any) -> None:
        self._consumers: dict[int, list[Any]] = {}
        self._uses: dict[int, int] = {}
        self._producers: dict[int, list[Any]] = {}
        for inner in _models(adapter, model):
            # The graph of a model has no public form. A Sequential model has it in ``_functional``:
            # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/models/sequential.py,
            # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/ops/function.py and
            # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/ops/node.py.
            graph = getattr(inner, "_functional", None) or inner
            for node in itertools.chain.from_iterable(graph._nodes_by_depth.values()):
                self._uses[id(node.operation)] = self._uses.get(id(node.operation), 0) + 1
                for tensor in node.input_tensors:
                    self._consumers.setdefault(id(tensor._keras_history.operation), []).append(node.operation)
                    self._producers.setdefault(id(node.operation), []).append(tensor._keras_history.operation)
            for tensor in graph.outputs:
                self._consumers.setdefault(id(tensor._keras_history.operation), []).append(None)

    def fused_next(self, layer: Any) -> Any:
        """Return the only consumer of a layer where it is a normalization or activation that may fuse; else None."""
        consumers = self._consumers.get(id(layer), [])
        if len(consumers) != 1:
            return None
        (consumer,) = consumers
        fusable = isinstance(consumer, keras.layers.BatchNormalization | keras.layers.ReLU) or (
            isinstance(consumer, keras.layers.Activation) and function_name(consumer.activation) in ("relu", "relu6")
        )
        return consumer if fusable else None

    def input_reader(self, layer: Any) -> Any:
        """Return what first changes an input of the model on its way to a layer whose kernel reads that input itself.

        The layer itself, an earlier one that the converter has folded into the kernel, or an operation that is no layer.
        """
        reader = layer
        while len(producers := self._producers.get(id(layer), [])) == 1 and not isinstance(
            producers[0], keras.layers.InputLayer
        ):
            (layer,) = producers
            rule = known_rule_of(layer)
            if rule is None or rule.output_of(layer) != "kept":
                reader = layer
        return reader

    def uses(self, layer: Any) -> int:
        """Return the number of calls of a layer."""
        return self._uses.get(id(layer), 1)


def _models(adapter: KerasAdapter, model: Any) -> Iterator[Any]:
    """Yield a model, and all models inside it."""
    yield model
    for layer in model.layers:
        if isinstance(layer, adapter.functional_classes):
            yield from _models(adapter, layer)
