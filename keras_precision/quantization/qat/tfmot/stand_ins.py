"""Layers of Keras 3 that tf_keras lacks, or computes otherwise, as several layers of tf_keras."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tf_keras
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer  # Keras has no public name for it

__all__ = ["ACTIVATIONS", "Made", "separate_activation", "stand_in"]

Made = tuple[Any, list[Any]]
"""What came of it, and the layers that computed it."""


def stand_in(layer: Any, operands: Sequence[Any], name: str) -> Made | None:
    """Compute a layer without weights by others.

    Args:
        layer: A layer of Keras 3.
        operands: What it is called with, tensors of tf_keras.
        name: What the names of the others begin with.

    Returns:
        What it computes, and the others; None where tf_keras has the layer itself.
    """
    if type(layer) is CustomScaleLayer:
        scaled = tf_keras.layers.Rescaling(layer.scale, name=f"{name}__scaled")
        summed = tf_keras.layers.Add(name=name)
        return summed([operands[0], scaled(operands[1])]), [scaled, summed]
    if type(layer) is keras.layers.Add and len(operands) > 2:  # one ADD has two operands, and each sum a range
        sums = [tf_keras.layers.Add(name=f"{name}__{number}") for number in range(1, len(operands))]
        value = operands[0]
        for each, operand in zip(sums, operands[1:], strict=True):
            value = each([value, operand])
        return value, sums
    if type(layer) is keras.layers.Activation and (function := separate_activation(layer)) is not None:
        return ACTIVATIONS[function](operands[0], name)
    return None


def separate_activation(layer: Any) -> str | None:
    """Return the activation at the end of a layer, where it becomes layers of its own.

    Args:
        layer: A layer of Keras 3.

    Returns:
        Its name among ``ACTIVATIONS``; None for others, and inside recurrent layers.
    """
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    return name if name in ACTIVATIONS and not isinstance(layer, keras.layers.RNN) else None


def _hard_sigmoid(value: Any, name: str) -> Made:
    """``relu6(x + 3) / 6``; that of tf_keras has another slope."""
    layers = tf_keras.layers
    steps = [
        layers.Rescaling(1.0, offset=3.0, name=f"{name}__shifted"),
        layers.ReLU(6.0, name=f"{name}__clipped"),
        layers.Rescaling(1 / 6, name=name),
    ]
    for step in steps:
        value = step(value)
    return value, steps


def _hard_silu(value: Any, name: str) -> Made:
    gate, steps = _hard_sigmoid(value, f"{name}__gate")
    product = tf_keras.layers.Multiply(name=name)
    return product([value, gate]), [*steps, product]


def _silu(value: Any, name: str) -> Made:
    layer = tf_keras.layers.Activation("swish", name=name)
    return layer(value), [layer]


ACTIVATIONS: dict[str, Callable[[Any, str], Made]] = {
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "silu": _silu,
}
"""Activations that tf_keras computes otherwise, or not at all; or that TFMOT leaves in float within a convolution."""
