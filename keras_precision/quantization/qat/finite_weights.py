"""Check that training did not diverge: quantization turns NaN into ordinary integers, so a file would not show it."""

from typing import Any

import numpy as np

from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.errors import ModelError

__all__ = ["check_finite"]


def check_finite(model: Any) -> None:
    """Raise ModelError if a weight or a range of a quantization-aware model is NaN or infinite."""
    for path, layer in layer_paths(model).items():
        if not all(np.isfinite(values).all() for values in layer.get_weights()):
            raise ModelError(
                f"Expected finite weights. Received: NaN or infinity in the layer '{path}', so training has diverged. "
                "Train again, from the model in float, with a smaller learning rate."
            )
