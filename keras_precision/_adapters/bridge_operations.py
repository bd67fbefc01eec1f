"""Operations of Keras 3 that are no layers (``x + y``, ``ops.relu6(x)``), as layers of tf_keras."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tf_keras

from keras_precision.errors import ModelError

__all__ = ["as_layer"]


def as_layer(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call what stands for an operation of Keras 3.

    Args:
        operation: The operation.
        args: Its arguments, tensors of tf_keras among them.
        kwargs: Likewise.

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
    return found(operands)


def _sum(operands: Sequence[Any]) -> Any:
    numbers, tensors = _split(operands)
    return tf_keras.layers.Rescaling(1.0, offset=numbers[0])(tensors[0]) if numbers else tf_keras.layers.Add()(tensors)


def _product(operands: Sequence[Any]) -> Any:
    numbers, tensors = _split(operands)
    return tf_keras.layers.Rescaling(numbers[0])(tensors[0]) if numbers else tf_keras.layers.Multiply()(tensors)


def _split(operands: Sequence[Any]) -> tuple[list[float], list[Any]]:
    numbers = [float(each) for each in operands if isinstance(each, int | float)]
    return numbers, [each for each in operands if not isinstance(each, int | float)]


def _activation(name: str) -> Callable[[Sequence[Any]], Any]:
    return lambda operands: tf_keras.layers.Activation(name)(operands[0])


_OPERATIONS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "Add": _sum,
    "Multiply": _product,
    "Relu": _activation("relu"),
    "Relu6": lambda operands: tf_keras.layers.ReLU(6.0)(operands[0]),
    "Silu": _activation("swish"),
    "Sigmoid": _activation("sigmoid"),
    "Tanh": _activation("tanh"),
    "Gelu": _activation("gelu"),
    "Softmax": _activation("softmax"),
}
