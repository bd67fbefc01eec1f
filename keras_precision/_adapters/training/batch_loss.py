"""BatchLoss: the loss of a single batch, where Keras reports only a mean over the epoch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["BatchLoss", "listen_to_tracker"]


class BatchLoss:
    """A trainer that does not report the loss of a batch.

    Attributes:
        source: How the loss is measured, or that it is unknown.
    """

    source = "unknown"

    def take(self) -> float | None:
        """Return the loss of the batch that was trained last, None if unknown; it waits for the device."""
        return None

    def rest(self) -> None:
        """Do nothing until the next loss that is not finite: an epoch has ended, and Keras starts a new mean."""


@contextmanager
def listen_to_tracker(tracker: Any) -> Iterator[BatchLoss]:
    """Read the loss that an eager trainer passes to the metric of its mean: Keras 3 on PyTorch."""
    tracked = _TrackedLoss()
    original = tracker.update_state

    def update_state(values: Any, *arguments: Any, **options: Any) -> Any:
        tracked.loss = values.detach()  # and not the graph that computed it
        return original(values, *arguments, **options)

    # train_step passes the batch's loss to this metric and nowhere else:
    # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/torch/trainer.py. The method of this one
    # metric is replaced; object.__setattr__ avoids the tracking of attributes in Metric.__setattr__
    # (https://github.com/keras-team/keras/blob/v3.15.1/keras/src/metrics/metric.py).
    object.__setattr__(tracker, "update_state", update_state)
    try:
        yield tracked
    finally:
        if vars(tracker).get("update_state") is update_state:  # and not that of another profiler, around it
            object.__delattr__(tracker, "update_state")


class _TrackedLoss(BatchLoss):
    source = "by the batch's own loss, as the trainer passes it to the metric of its mean"

    def __init__(self) -> None:
        self.loss: Any = None

    def take(self) -> float | None:
        loss, self.loss = self.loss, None
        return None if loss is None else float(loss)
