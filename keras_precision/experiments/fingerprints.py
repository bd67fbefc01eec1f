"""Hashes of what must be equal between two runs: weights, data and configuration."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.experiments.task import leading_arrays

__all__ = ["configuration_hash", "data_hash", "weights_hash"]

_BATCHES = 16
_LENGTH = 16


def weights_hash(model: Any) -> str:
    """Return a hash of the weights of a built model, as hexadecimal digits."""
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:_LENGTH]


def data_hash(data: Any) -> str:
    """Return a hash of data in their order: of all arrays, or of the first 16 batches of a dataset."""
    digest = hashlib.sha256()
    for array in leading_arrays(data, _BATCHES):
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:_LENGTH]


def configuration_hash(adapter: KerasAdapter, model: Any, settings: Mapping[str, Any]) -> str:
    """Return a hash of a run apart from its precision.

    It covers the layers with their settings, the optimizer without loss scaling, the loss, and ``settings`` of the run.
    """
    optimizer = model.optimizer
    inner = adapter.unscaled(optimizer)
    layers = [
        (path, type(layer).__name__, _without_types(layer.get_config())) for path, layer in layer_paths(model).items()
    ]
    loss = getattr(model, "loss", None)
    identity = {
        "layers": layers,
        "optimizer": (type(inner).__name__, _without_types(inner.get_config())),
        "loss": loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", str(type(loss)))),
        "settings": dict(settings),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=_type_name).encode()).hexdigest()[:_LENGTH]


def _without_types(config: Any) -> Any:
    """Return a configuration without dtypes, and without names, which Keras numbers."""
    if isinstance(config, Mapping):
        ignored = ("dtype", "name", "build_config")
        return {str(key): _without_types(value) for key, value in config.items() if key not in ignored}
    if isinstance(config, Sequence) and not isinstance(config, str | bytes):
        return [_without_types(value) for value in config]
    return config


def _type_name(value: Any) -> str:
    """Return the name of a value that is not JSON, without its address, which differs between processes."""
    return str(getattr(value, "__qualname__", type(value).__qualname__))
