"""The state of layers: weights, and what a layer has besides them, such as vocabularies, bins and constants."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import numpy as np

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision.core.errors import ModelError

__all__ = ["copy_state", "lossy_copy", "state_in_config"]


@contextmanager
def state_in_config(adapter: KerasAdapter, model: Any) -> Iterator[None]:
    """Let the configuration of a model contain what its lookups were adapted to, inside a ``with`` block.

    Keras saves it in files of its own beside the configuration, and layers after a lookup cannot be built without it:
    https://github.com/keras-team/keras/blob/v3.15.1/keras/src/layers/preprocessing/index_lookup.py (save_assets).
    """
    former = []
    for layer in adapter.walk(model):
        for name, value in adapter.adapted_arguments(layer).items():
            former.append((vars(layer), name, vars(layer)[name]))
            vars(layer)[name] = value  # avoids the tracking in Layer.__setattr__
    try:
        yield
    finally:
        for attributes, name, value in former:
            attributes[name] = value


def copy_state(adapter: KerasAdapter, source: Any, target: Any) -> None:
    """Copy weights and other state to a layer or model, and to the layers inside it, as saving and loading would."""
    for inner, copied in zip_longest(adapter.walk(source), adapter.walk(target)):
        if inner is None or copied is None or type(inner) is not type(copied):
            raise lossy_copy((inner or copied).name, "it has other layers inside after it is rebuilt")
        if adapter.is_lookup(inner):
            continue  # Its configuration contains all its state.
        try:
            _copy_layer_state(inner, copied)
            for state, variable in zip(adapter.recurrent_states(inner), adapter.recurrent_states(copied), strict=True):
                variable.assign(np.asarray(state))
        except (ValueError, TypeError, KeyError, AttributeError, OSError, NotImplementedError) as error:
            raise lossy_copy(inner.name, " ".join(str(error).split())) from error


def _copy_layer_state(source: Any, target: Any) -> None:
    """Pass the state through the methods with which Keras saves and loads a layer."""
    store: dict[str, Any] = {}
    source.save_own_variables(store)
    target.load_own_variables({name: np.asarray(value).copy() for name, value in store.items()})
    if hasattr(source, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            if os.listdir(folder):
                target.load_assets(folder)
    if hasattr(target, "finalize_state"):
        target.finalize_state()  # such as constants that a layer computes from its weights


def lossy_copy(name: str, reason: str) -> ModelError:
    """Return the error that names a layer whose copy has lost state."""
    return ModelError(
        f"Expected layers that can be copied with all their state. Received: '{name}': {reason} Implement get_config, "
        "save_own_variables and load_own_variables in its class, as for saving, or pass in_place=True."
    )
