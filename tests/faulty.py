"""Layers and nets that break on purpose, for whichever Keras is under test."""

from typing import Any


def operations(keras: Any) -> Any:
    """What ``keras.ops`` is in Keras 3, and TensorFlow's own functions for tf_keras."""
    if hasattr(keras, "ops"):
        return keras.ops
    import tensorflow

    return tensorflow


def boom(keras: Any, **options: Any) -> Any:
    """A layer of one's own that takes exp of what comes in; on JAX it is rounded, where XLA might keep it in float32."""
    ops = operations(keras)

    class Boom(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return _rounded(keras, ops.exp(inputs))

    return Boom(**options)


def _rounded(keras: Any, value: Any) -> Any:
    if not hasattr(keras, "ops") or keras.config.backend() != "jax" or value.dtype != "float16":
        return value
    import jax

    return jax.lax.reduce_precision(value, exponent_bits=5, mantissa_bits=10)


def backward_boom(keras: Any, **options: Any) -> Any:
    """A layer of one's own whose output is finite, and whose gradient is not where an input is 0."""
    ops = operations(keras)

    class Root(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return ops.sqrt(ops.maximum(inputs, ops.zeros_like(inputs)))

    return Root(**options)


def holder(keras: Any, inner: Any, **options: Any) -> Any:
    """A layer of one's own around another one."""

    class Holder(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__(**options)
            self.inner = inner

        def call(self, inputs: Any) -> Any:
            return self.inner(inputs) * 2

    return Holder()


def net(keras: Any, *middle: Any, width: int = 8) -> Any:
    """A dense layer over 8 features, what is given, and a dense layer with one output in float32; compiled."""
    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((8,)), layers.Dense(width, name="first"), *middle, layers.Dense(1, name="last", dtype="float32")],
        name="net",
    )
    model.compile("sgd", "mse")
    return model
