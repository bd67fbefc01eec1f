"""BatchLoss: the loss of a single batch, where Keras tells a mean over the epoch alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["BatchLoss", "heard_by_tracker"]


class BatchLoss:
    """A trainer that does not tell the loss of a batch.

    Attributes:
        source: How it is got, or that it is not.
    """

    source = "unknown"

    def take(self) -> float | None:
        """Return the loss of the batch that was trained last; None if nobody told it. It waits for the device."""
        return None

    def rest(self) -> None:
        """Do nothing until the next loss that is not finite: an epoch has ended, and Keras begins a new mean."""


@contextmanager
def heard_by_tracker(tracker: Any) -> Iterator[BatchLoss]:
    """Listen to what an eager trainer tells the metric that averages its loss: Keras 3 on PyTorch.

    Args:
        tracker: The metric; its ``update_state`` is given the loss of each batch.

    Yields:
        The loss of the last batch.
    """
    heard = _Heard()
    original = tracker.update_state

    def update_state(values: Any, *arguments: Any, **options: Any) -> Any:
        heard.loss = values.detach()  # and not the graph that computed it
        return original(values, *arguments, **options)

    object.__setattr__(tracker, "update_state", update_state)  # past Keras's tracking of attributes
    try:
        yield heard
    finally:
        if vars(tracker).get("update_state") is update_state:  # and not that of another profiler, around it
            object.__delattr__(tracker, "update_state")


class _Heard(BatchLoss):
    source = "by the batch's own loss, as the trainer tells it to the metric of its mean"

    def __init__(self) -> None:
        self.loss: Any = None

    def take(self) -> float | None:
        loss, self.loss = self.loss, None
        return None if loss is None else float(loss)
