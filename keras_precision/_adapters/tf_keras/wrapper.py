"""PrecisionWrapper of tf_keras."""

from typing import Any

import tensorflow as tf
import tf_keras

from keras_precision._adapters.wrapping import Wrapping

__all__ = ["PrecisionWrapper"]


@tf_keras.utils.register_keras_serializable("keras_precision")
class PrecisionWrapper(Wrapping, tf_keras.layers.Wrapper):
    """A layer of tf_keras that computes in a precision of its own: see ``kp.PrecisionWrapper``."""

    def flat(self, structure: Any) -> list[Any]:
        return list(tf.nest.flatten(structure))

    def mapped(self, function: Any, structure: Any) -> Any:
        return tf.nest.map_structure(function, structure)

    def cast(self, tensor: Any, dtype: str) -> Any:
        return tf.cast(tensor, dtype)
