"""Around: something that a train function passes through for a while, and the function that it had before."""

from typing import Any

__all__ = ["Around", "put", "take_away"]


class Around:
    """A train function around another one.

    Attributes:
        inner: The other one.
    """

    def __init__(self) -> None:
        self.inner: Any = None


def put(model: Any, around: Around, *, innermost: bool = False) -> None:
    """Put it around a model's train function, unless it is there already.

    Args:
        model: The model; its train function is made.
        around: What goes around it.
        innermost: Whether it goes inside all others: what it hands on is not what the trainer handed down.
    """
    if model.train_function is around and not innermost:
        return  # as at nearly every step
    # Another callback may have made the train function anew since the last step.
    chain = _chain(model)
    if around in chain:
        return
    if innermost and chain:
        around.inner, chain[-1].inner = chain[-1].inner, around
    else:
        around.inner, model.train_function = model.train_function, around


def take_away(model: Any, around: Around) -> None:
    """Take it out of the chain of those around a model's train function.

    Args:
        model: The model.
        around: What was put there.
    """
    for outer in _chain(model):
        if outer.inner is around:
            outer.inner = around.inner
    if model.train_function is around:
        model.train_function = around.inner


def _chain(model: Any) -> list[Around]:
    """What is around the train function: ours, and those of other profilers in the same fit."""
    found, function = [], model.train_function
    while isinstance(function, Around):
        found.append(function)
        function = function.inner
    return found
