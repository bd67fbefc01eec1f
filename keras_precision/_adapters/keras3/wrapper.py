"""PrecisionWrapper of Keras 3."""

from typing import Any

import keras

from keras_precision._adapters.wrapping import Wrapping

__all__ = ["PrecisionWrapper"]


@keras.saving.register_keras_serializable("keras_precision")
class PrecisionWrapper(Wrapping, keras.layers.Wrapper):
    """A layer of Keras 3 that computes in a precision of its own: see ``kp.PrecisionWrapper``."""

    def flat(self, structure: Any) -> list[Any]:
        return list(keras.tree.flatten(structure))

    def mapped(self, function: Any, structure: Any) -> Any:
        return keras.tree.map_structure(function, structure)

    def cast(self, tensor: Any, dtype: str) -> Any:
        return keras.ops.cast(tensor, dtype)
