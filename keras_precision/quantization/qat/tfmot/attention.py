"""MultiHeadAttention in tf_keras, laid open: TensorFlow Model Optimization wraps layers of one input alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow
import tf_keras

from keras_precision.core.errors import ModelError
from keras_precision.quantization.qat.tfmot.stand_ins import Made

__all__ = ["ProductOfTwo", "attention", "dense_layers"]


@tf_keras.saving.register_keras_serializable("keras_precision")
class ProductOfTwo(tf_keras.layers.Layer):  # type: ignore[misc] # tf_keras has no types
    """The product of two activations, a BATCH_MATMUL.

    Args:
        equation: As for ``tf.einsum``.
        **kwargs: As for ``tf_keras.layers.Layer``.
    """

    def __init__(self, equation: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.equation = equation

    def call(self, inputs: Sequence[Any]) -> Any:
        """Multiply.

        Args:
            inputs: The two.

        Returns:
            Their product.
        """
        return tensorflow.einsum(self.equation, *inputs)

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal layer."""
        return {**super().get_config(), "equation": self.equation}


def dense_layers(layer: Any) -> tuple[Any, ...]:
    """Return the layers inside an attention that have weights.

    Args:
        layer: A MultiHeadAttention of Keras 3.

    Returns:
        Those of query, key, value and output, in the order of its weights.
    """
    return layer._query_dense, layer._key_dense, layer._value_dense, layer._output_dense


def attention(
    layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any], name: str, translated: Callable[[Any, str], Any]
) -> Made:
    """Compute an attention by layers of one or two inputs.

    Args:
        layer: A MultiHeadAttention of Keras 3.
        args: What it is called with, tensors of tf_keras.
        kwargs: Likewise.
        name: What the names of the layers begin with.
        translated: Makes a layer of tf_keras of one of Keras 3, with a name.

    Returns:
        What it computes, and the layers, with the weights of the attention.

    Raises:
        ModelError: It is called with a mask, or asked for its scores.
    """
    given = {**dict(zip(("query", "value", "key"), args, strict=False)), **kwargs}
    known = ("query", "value", "key", "training")
    others = sorted(
        key for key, value in given.items() if key not in known and value is not None and value is not False
    )
    if others:
        raise ModelError(
            f"Expected an attention that is called with query, value and key. Received: '{layer.name}', called with {', '.join(others)}. "
            "Train it with engine='keras'."
        )
    roles = ("query", "key", "value", "output")
    dense = [translated(each, f"{name}__{role}") for each, role in zip(dense_layers(layer), roles, strict=True)]
    operands = (given["query"], given.get("key", given["value"]), given["value"])
    query, key, value = (each(operand) for each, operand in zip(dense[:3], operands, strict=True))
    scaled = tf_keras.layers.Rescaling(layer._inverse_sqrt_key_dim, name=f"{name}__scaled")
    scores = ProductOfTwo(layer._dot_product_equation, name=f"{name}__scores")
    shares = tf_keras.layers.Softmax(layer._softmax.axis, name=f"{name}__shares")
    dropped = tf_keras.layers.Dropout(layer.dropout, name=f"{name}__dropped")
    mixed = ProductOfTwo(layer._combine_equation, name=f"{name}__mixed")
    answer = dense[3](mixed([dropped(shares(scores([key, scaled(query)]))), value]))
    for each, source in zip(dense, dense_layers(layer), strict=True):
        each.set_weights(source.get_weights())
    return answer, [*dense, scaled, scores, shares, dropped, mixed]
