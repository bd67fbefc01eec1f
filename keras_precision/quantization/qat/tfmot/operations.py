"""Operations of Keras 3 that are not layers (``x + y``, ``ops.relu6(x)``), as layers of tf_keras."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tf_keras

from keras_precision.core.errors import ModelError
from keras_precision.quantization.qat.tfmot.stand_ins import ACTIVATIONS

__all__ = ["as_layer"]


def as_layer(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any], name: str) -> Any:
    """Call the tf_keras layer, of a unique name, for an operation of Keras 3; ModelError if there is none."""
    kind = type(operation).__name__
    build = _OPERATIONS.get(kind)
    operands = [value for value in keras.tree.flatten((args, dict(kwargs))) if value is not None]
    if build is None or not 1 <= len(operands) <= 2:
        raise ModelError(
            f"Expected layers, or operations that tf_keras has as layers. Received: '{operation.name}' of type {kind}. "
            "Train it with engine='keras', or replace it with a layer."
        )
    return build(operands, name)


def _sum(operands: Sequence[Any], name: str) -> Any:
    numbers, tensors = _split(operands)
    if numbers:
        return tf_keras.layers.Rescaling(1.0, offset=numbers[0], name=name)(tensors[0])
    return tf_keras.layers.Add(name=name)(tensors)


def _product(operands: Sequence[Any], name: str) -> Any:
    numbers, tensors = _split(operands)
    if numbers:
        return tf_keras.layers.Rescaling(numbers[0], name=name)(tensors[0])
    return tf_keras.layers.Multiply(name=name)(tensors)


def _split(operands: Sequence[Any]) -> tuple[list[float], list[Any]]:
    numbers = [float(operand) for operand in operands if isinstance(operand, int | float)]
    return numbers, [operand for operand in operands if not isinstance(operand, int | float)]


def _activation(function: str) -> Callable[[Sequence[Any], str], Any]:
    return lambda operands, name: tf_keras.layers.Activation(function, name=name)(operands[0])


_OPERATIONS: dict[str, Callable[[Sequence[Any], str], Any]] = {
    "Add": _sum,
    "Multiply": _product,
    "Relu": _activation("relu"),
    "Relu6": lambda operands, name: tf_keras.layers.ReLU(6.0, name=name)(operands[0]),
    "Silu": _activation("swish"),
    "Sigmoid": _activation("sigmoid"),
    "Tanh": _activation("tanh"),
    "Gelu": _activation("gelu"),
    "Softmax": _activation("softmax"),
    "HardSigmoid": lambda operands, name: ACTIVATIONS["hard_sigmoid"](operands[0], name)[0],
    "HardSilu": lambda operands, name: ACTIVATIONS["hard_silu"](operands[0], name)[0],
}
