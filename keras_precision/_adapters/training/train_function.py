"""A model's train function: wrapped by another one, or made again during a fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["TrainFunctionWrapper", "rebuild_train_function", "unwrap", "wrap"]


class TrainFunctionWrapper:
    """A train function around another one.

    Attributes:
        inner: The wrapped function.
    """

    def __init__(self) -> None:
        self.inner: Any = None


# ``train_function`` is what ``fit`` calls for a step on every stack; ``make_train_function`` sets it, and any callback
# may call that again: https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/tensorflow/trainer.py,
# https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/engine/training.py.
def wrap(model: Any, wrapper: TrainFunctionWrapper, *, innermost: bool = False) -> None:
    """Wrap a model's train function, unless it is wrapped already; ``innermost`` goes inside all other wrappers."""
    if model.train_function is wrapper and not innermost:
        return  # as at nearly every step
    # Another callback may have rebuilt the train function since the last step.
    chain = _chain(model)
    if wrapper in chain:
        return
    if innermost and chain:
        wrapper.inner, chain[-1].inner = chain[-1].inner, wrapper
    else:
        wrapper.inner, model.train_function = model.train_function, wrapper


def unwrap(model: Any, wrapper: TrainFunctionWrapper) -> None:
    """Remove a wrapper from the chain around a model's train function."""
    for outer in _chain(model):
        if outer.inner is wrapper:
            outer.inner = wrapper.inner
    if model.train_function is wrapper:
        model.train_function = wrapper.inner


def _chain(model: Any) -> list[TrainFunctionWrapper]:
    """Return the wrappers from the outermost on: ours, and those of other profilers in the same fit."""
    chain, function = [], model.train_function
    while isinstance(function, TrainFunctionWrapper):
        chain.append(function)
        function = function.inner
    return chain


@contextmanager
def rebuild_train_function(model: Any) -> Iterator[None]:
    """Bring the training state into the variables for a change of the model, then rebuild its train function."""
    # JAX keeps the state of a running epoch outside the model, in _jax_state:
    # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/jax/trainer.py
    if getattr(model, "_jax_state", None):
        model.jax_state_sync()
    yield
    model.make_train_function(force=True)
