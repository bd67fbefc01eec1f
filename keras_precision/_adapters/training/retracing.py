"""Changing a model during its fit, which goes on with a new train function."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["rebuild_train_function"]


@contextmanager
def rebuild_train_function(model: Any) -> Iterator[None]:
    """Bring the training state into the variables for a change of the model, then rebuild its train function."""
    # JAX keeps the state of a running epoch outside the model, in _jax_state:
    # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/jax/trainer.py
    if getattr(model, "_jax_state", None):
        model.jax_state_sync()
    yield
    model.make_train_function(force=True)
