"""Layers of Keras 3 that tf_keras lacks, or computes differently, as several layers of tf_keras."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tf_keras

# Without a public name: https://github.com/keras-team/keras/blob/v3.15.1/keras/src/applications/inception_resnet_v2.py.
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

__all__ = ["Expansion", "activation", "separate_activation", "stand_in"]

_INSIDE = ("linear", "relu", "softmax", "sigmoid", "tanh", "gelu")
"""Those that TFMOT takes inside a layer:
https://github.com/tensorflow/model-optimization/blob/v0.8.1/tensorflow_model_optimization/python/core/quantization/keras/quantize_aware_activation.py."""

Expansion = tuple[Any, list[Any]]
"""The output for a layer, and the layers that compute it."""


def stand_in(layer: Any, operands: Sequence[Any], name: str) -> Expansion | None:
    """Compute a Keras 3 layer without weights by layers of tf_keras; None where tf_keras has the layer itself."""
    if type(layer) is CustomScaleLayer:
        scaled = tf_keras.layers.Rescaling(layer.scale, name=f"{name}__scaled")
        summed = tf_keras.layers.Add(name=name)
        return summed([operands[0], scaled(operands[1])]), [scaled, summed]
    if type(layer) is keras.layers.Add and len(operands) > 2:  # ADD has two operands, and every sum its own range
        sums = [tf_keras.layers.Add(name=f"{name}__{number}") for number in range(1, len(operands))]
        value = operands[0]
        for layer_of_two, operand in zip(sums, operands[1:], strict=True):
            value = layer_of_two([value, operand])
        return value, sums
    if type(layer) is keras.layers.Activation and (function := separate_activation(layer)) is not None:
        return activation(function, operands[0], name)
    return None


def separate_activation(layer: Any) -> str | None:
    """Return the name of an activation that TFMOT does not take inside a layer; None for others, and in recurrent layers."""
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    if isinstance(layer, keras.layers.RNN) or name in _INSIDE:
        return None
    return name if name in ACTIVATIONS or hasattr(tf_keras.activations, name) else None


def activation(function: str, value: Any, name: str) -> Expansion:
    """Compute an activation that ``separate_activation`` named by layers of their own."""
    if function in ACTIVATIONS:
        return ACTIVATIONS[function](value, name)
    return _applied(tf_keras.layers.Activation(function, name=name), value)


def _applied(layer: Any, value: Any) -> Expansion:
    return layer(value), [layer]


def _hard_sigmoid(value: Any, name: str) -> Expansion:
    """``relu6(x + 3) / 6``; hard_sigmoid of tf_keras has another slope."""
    layers = tf_keras.layers
    steps = [
        layers.Rescaling(1.0, offset=3.0, name=f"{name}__shifted"),
        layers.ReLU(6.0, name=f"{name}__clipped"),
        layers.Rescaling(1 / 6, name=name),
    ]
    for step in steps:
        value = step(value)
    return value, steps


def _hard_silu(value: Any, name: str) -> Expansion:
    gate, steps = _hard_sigmoid(value, f"{name}__gate")
    product = tf_keras.layers.Multiply(name=name)
    return product([value, gate]), [*steps, product]


def _silu(value: Any, name: str) -> Expansion:
    return activation("swish", value, name)


def _relu6(value: Any, name: str) -> Expansion:
    return _applied(tf_keras.layers.ReLU(6.0, name=name), value)


def _leaky_relu(value: Any, name: str) -> Expansion:
    return _applied(tf_keras.layers.LeakyReLU(0.2, name=name), value)  # the default of Keras's function


ACTIVATIONS: dict[str, Callable[[Any, str], Expansion]] = {
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "silu": _silu,
    "relu6": _relu6,
    "leaky_relu": _leaky_relu,
}
"""Activations that tf_keras lacks or computes differently, or that TFMOT leaves in float inside a convolution."""
