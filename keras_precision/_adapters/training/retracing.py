"""trained_anew: a change of a model in the midst of its fit, which goes on in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["trained_anew"]


@contextmanager
def trained_anew(model: Any) -> Iterator[None]:
    """Change a model while it trains: its state is in its variables meanwhile, and its step is made anew afterwards.

    Args:
        model: The model.
    """
    if getattr(model, "_jax_state", None):
        model.jax_state_sync()  # JAX keeps the state of a running epoch outside the model
    yield
    model.make_train_function(force=True)
