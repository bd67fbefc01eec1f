"""Identity: what must be equal between two runs, as hashes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.experiments.task import pieces

__all__ = ["configuration_hash", "data_hash", "weights_hash"]

_BATCHES = 16
_LENGTH = 16


def weights_hash(model: Any) -> str:
    """Return a hash of a model's weights.

    Args:
        model: A built model.

    Returns:
        Hexadecimal digits.
    """
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:_LENGTH]


def data_hash(data: Any) -> str:
    """Return a hash of data in their order: of all arrays, or of the first 16 batches of a dataset.

    Args:
        data: Arrays or a dataset.

    Returns:
        Hexadecimal digits.
    """
    digest = hashlib.sha256()
    for array in pieces(data, _BATCHES):
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:_LENGTH]


def configuration_hash(adapter: KerasAdapter, model: Any, settings: Mapping[str, Any]) -> str:
    """Return a hash of what a run is, apart from its precision.

    Args:
        adapter: The Keras of the model.
        model: The compiled model.
        settings: Batch size, epochs, callbacks and the like.

    Returns:
        Hexadecimal digits: of the layers with their settings, the optimizer under any loss scaling,
        the loss and these settings.
    """
    optimizer = model.optimizer
    inner = optimizer.inner_optimizer if adapter.is_loss_scaling(optimizer) else optimizer
    layers = [
        (path, type(layer).__name__, _without_types(layer.get_config())) for path, layer in layer_paths(model).items()
    ]
    loss = getattr(model, "loss", None)
    told = {
        "layers": layers,
        "optimizer": (type(inner).__name__, _without_types(inner.get_config())),
        "loss": loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", str(type(loss)))),
        "settings": dict(settings),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=_shown).encode()).hexdigest()[:_LENGTH]


def _without_types(config: Any) -> Any:
    """A configuration without dtypes, and without the names that Keras counts up."""
    if isinstance(config, Mapping):
        kept = {key: value for key, value in config.items() if key not in ("dtype", "name", "build_config")}
        return {str(key): _without_types(value) for key, value in kept.items()}
    if isinstance(config, Sequence) and not isinstance(config, str | bytes):
        return [_without_types(value) for value in config]
    return config


def _shown(value: Any) -> str:
    """Something that JSON does not know, without the address that differs between processes."""
    return str(getattr(value, "__qualname__", type(value).__qualname__))
