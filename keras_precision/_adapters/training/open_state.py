"""training_state_of: the training state of a model, as its Keras version keeps it."""

from typing import Any

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision._adapters.training.training_state import TrainingState

__all__ = ["training_state_of"]


def training_state_of(adapter: KerasAdapter, model: Any) -> TrainingState:
    """Return the training state of a built model."""
    if adapter.keras.__name__ == "tf_keras":
        from keras_precision._adapters.tf_keras.training_state import LegacyTrainingState

        return LegacyTrainingState(adapter, model)
    from keras_precision._adapters.keras3.training_state import Keras3TrainingState

    return Keras3TrainingState(adapter, model)
