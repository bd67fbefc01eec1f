"""inside_of: the state of a model's training step, as its Keras keeps it."""

from typing import Any

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision._adapters.training.training_state import Inside

__all__ = ["inside_of"]


def inside_of(adapter: KerasAdapter, model: Any) -> Inside:
    """Return the inside of a model.

    Args:
        adapter: Its Keras.
        model: A built model.

    Returns:
        It.
    """
    if adapter.keras.__name__ == "tf_keras":
        from keras_precision._adapters.tf_keras.training_state import LegacyInside

        return LegacyInside(adapter, model)
    from keras_precision._adapters.keras3.training_state import Keras3Inside

    return Keras3Inside(adapter, model)
