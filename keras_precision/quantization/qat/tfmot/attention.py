"""MultiHeadAttention as several layers of tf_keras: TensorFlow Model Optimization wraps only layers with one input."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow
import tf_keras

from keras_precision.core.errors import ModelError
from keras_precision.quantization.qat.tfmot.stand_ins import Expansion

__all__ = ["ProductOfTwo", "attention", "dense_layers"]


@tf_keras.saving.register_keras_serializable("keras_precision")
class ProductOfTwo(tf_keras.layers.Layer):  # type: ignore[misc] # tf_keras has no types
    """The product of two activations by an equation of ``tf.einsum``, a BATCH_MATMUL."""

    def __init__(self, equation: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.equation = equation

    def call(self, inputs: Sequence[Any]) -> Any:
        """Return the product of two tensors."""
        return tensorflow.einsum(self.equation, *inputs)

    def get_config(self) -> dict[str, Any]:
        """Return the configuration."""
        return {**super().get_config(), "equation": self.equation}


def dense_layers(layer: Any) -> tuple[Any, ...]:
    """Return the layers of query, key, value and output inside an attention of Keras 3, in the order of its weights."""
    # Private as are the scale, the equations and the softmax below, which have no public names:
    # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/layers/attention/multi_head_attention.py.
    return layer._query_dense, layer._key_dense, layer._value_dense, layer._output_dense


def attention(
    layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any], name: str, translated: Callable[[Any, str], Any]
) -> Expansion:
    """Compute an attention of Keras 3 by layers of tf_keras, with its weights, and names that start with ``name``.

    ``translated`` returns the tf_keras layer, of a name, for a Keras 3 layer. Raises ModelError for masks and scores.
    """
    arguments = {**dict(zip(("query", "value", "key"), args, strict=False)), **kwargs}
    known = ("query", "value", "key", "training")
    others = sorted(
        key for key, value in arguments.items() if key not in known and value is not None and value is not False
    )
    if others:
        raise ModelError(
            f"Expected an attention that is called with query, value and key. Received: '{layer.name}', called with {', '.join(others)}. "
            "Train it with engine='keras'."
        )
    roles = ("query", "key", "value", "output")
    dense = [translated(inner, f"{name}__{role}") for inner, role in zip(dense_layers(layer), roles, strict=True)]
    operands = (arguments["query"], arguments.get("key", arguments["value"]), arguments["value"])
    query, key, value = (projection(operand) for projection, operand in zip(dense[:3], operands, strict=True))
    scaled = tf_keras.layers.Rescaling(layer._inverse_sqrt_key_dim, name=f"{name}__scaled")
    scores = ProductOfTwo(layer._dot_product_equation, name=f"{name}__scores")
    shares = tf_keras.layers.Softmax(layer._softmax.axis, name=f"{name}__shares")
    dropped = tf_keras.layers.Dropout(layer.dropout, name=f"{name}__dropped")
    mixed = ProductOfTwo(layer._combine_equation, name=f"{name}__mixed")
    output = dense[3](mixed([dropped(shares(scores([key, scaled(query)]))), value]))
    for projection, source in zip(dense, dense_layers(layer), strict=True):
        projection.set_weights(source.get_weights())
    return output, [*dense, scaled, scores, shares, dropped, mixed]
