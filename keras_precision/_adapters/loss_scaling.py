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
    """A model whose optimizer applies every step."""

    source = "no loss scaling: every step is applied"

    def begin(self) -> None:
        """Do nothing."""

    def scale(self) -> None:
        """Return None: there is no scale."""

    def skipped(self, batches: int | None) -> int:
        """Return 0.

        Args:
            batches: Not used.
        """
        return 0
