"""Whether training left numbers: NaN has an integer, too, and a file of it would say nothing of it."""

from typing import Any

import numpy as np

from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.errors import ModelError

__all__ = ["check_finite"]


def check_finite(model: Any) -> None:
    """Raise where a weight, or a range, is NaN or infinite.

    Args:
        model: A quantization-aware model of Keras 3, or one that TensorFlow Model Optimization has prepared.

    Raises:
        ModelError: One is.
    """
    for path, layer in layer_paths(model).items():
        if not all(np.isfinite(values).all() for values in layer.get_weights()):
            raise ModelError(
                f"Expected finite weights. Received: NaN or infinity in the layer '{path}', so training has diverged. "
                "Train again, from the model in float, with a smaller learning rate."
            )
