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
    """A model whose optimizer scales no loss, or by a fixed factor, and so skips no step.

    Args:
        certain: Whether the training step is Keras's own; one of the user's may do as it likes.
        scale: The fixed factor, if there is one.
    """

    def __init__(self, *, certain: bool = True, scale: float | None = None) -> None:
        self._certain, self._scale = certain, scale

    @property
    def source(self) -> str:
        """How skipped steps are counted."""
        return (
            "no dynamic loss scaling: every step is applied"
            if self._certain
            else "unknown: the train_step is the user's own"
        )

    def begin(self) -> None:
        """Do nothing."""

    def scale(self) -> float | None:
        """Return the fixed factor, or None."""
        return self._scale

    def skipped(self, batches: int | None) -> int | None:
        """Return 0, if that is certain.

        Args:
            batches: Not used.
        """
        return 0 if self._certain else None
