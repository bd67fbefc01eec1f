"""LossScaling: what a model's optimizer says of its loss scale and of the steps that it skipped."""

from abc import ABC, abstractmethod

__all__ = ["LossScaling", "NoLossScaling"]


class LossScaling(ABC):
    """Reads the loss scale and counts skipped steps, from ``begin`` on.

    Reading waits for the device: it is done once an epoch, not once a step.
    """

    @property
    @abstractmethod
    def source(self) -> str:
        """How skipped steps are counted."""

    @abstractmethod
    def begin(self) -> None:
        """Start to count, before the first step."""

    @abstractmethod
    def scale(self) -> float | None:
        """Return the loss scale; None where there is none."""

    @abstractmethod
    def skipped(self, batches: int | None) -> int | None:
        """Return the steps skipped since ``begin``.

        Args:
            batches: Batches trained since ``begin``; None if that is not certain.

        Returns:
            The count; None if it cannot be known.
        """


class NoLossScaling(LossScaling):
    """A model whose optimizer scales no loss, and so skips no step.

    Args:
        certain: Whether the training step is Keras's own; one of the user's may do as it likes.
    """

    def __init__(self, *, certain: bool = True) -> None:
        self._certain = certain

    @property
    def source(self) -> str:
        """How skipped steps are counted."""
        return (
            "no loss scaling: every step is applied" if self._certain else "unknown: the train_step is the user's own"
        )

    def begin(self) -> None:
        """Do nothing."""

    def scale(self) -> None:
        """Return None: there is no scale."""

    def skipped(self, batches: int | None) -> int | None:
        """Return 0, if that is certain.

        Args:
            batches: Not used.
        """
        return 0 if self._certain else None
