"""All that differs between tf_keras, and Keras 3 on TensorFlow, JAX and PyTorch.

An adapter is chosen by the class of an object, not by a global flag, so that Keras 3 and tf_keras models can be used in
one process. A framework is imported only for an object of it.
"""

import sys
from typing import Any

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision.core.errors import ModelError

__all__ = ["KerasAdapter", "adapter_for_file", "adapter_of", "adapters_in_use", "legacy_adapter"]


def adapter_of(model: Any) -> KerasAdapter:
    """Return the adapter of the Keras version that a model, layer or optimizer belongs to."""
    packages = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    if "tf_keras" in packages:
        return _legacy()
    if "keras" in packages:
        return _keras3()
    raise ModelError(
        f"Expected a Keras model. Received: an object of type {type(model).__module__}.{type(model).__qualname__}. "
        "Models of torch.nn or tf.Module must be wrapped in a keras.Model first."
    )


def adapter_for_file() -> KerasAdapter:
    """Return the adapter that loads ``.keras`` files: that of Keras 3."""
    return _keras3()


def legacy_adapter() -> KerasAdapter:
    """Return the adapter of tf_keras, which must be installed."""
    return _legacy()


def adapters_in_use() -> list[KerasAdapter]:
    """Return the adapter of Keras 3, and that of tf_keras where it is loaded."""
    return [_keras3(), _legacy()] if "tf_keras" in sys.modules else [_keras3()]


def _keras3() -> KerasAdapter:
    from keras_precision._adapters.keras3.adapter import ADAPTER

    return ADAPTER


def _legacy() -> KerasAdapter:
    from keras_precision._adapters.tf_keras.adapter import ADAPTER

    return ADAPTER
