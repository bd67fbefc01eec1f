"""Operations of Keras 3 that are no layers (``x + y``, ``ops.relu6(x)``), as layers of tf_keras."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tf_keras

from keras_precision.core.errors import ModelError
from keras_precision.quantization.qat.tfmot.stand_ins import ACTIVATIONS

__all__ = ["as_layer"]


def as_layer(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any], name: str) -> Any:
    """Call what stands for an operation of Keras 3.

    Args:
        operation: The operation.
        args: Its arguments, tensors of tf_keras among them.
        kwargs: Likewise.
        name: The name of the layer, which no other may have.

    Returns:
        A tensor of tf_keras.

    Raises:
        ModelError: Nothing stands for it.
    """
    kind = type(operation).__name__
    found = _OPERATIONS.get(kind)
    operands = [value for value in keras.tree.flatten((args, dict(kwargs))) if value is not None]
    if found is None or not 1 <= len(operands) <= 2:
        raise ModelError(
            f"Expected layers, and operations that tf_keras has as layers. Received: '{operation.name}' of type {kind}. "
            "Train it with engine='keras', or use a layer in its place."
        )
    return found(operands, name)


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
    numbers = [float(each) for each in operands if isinstance(each, int | float)]
    return numbers, [each for each in operands if not isinstance(each, int | float)]


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
