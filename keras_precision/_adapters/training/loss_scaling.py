"""LossScaling: the loss scale of a model's optimizer, and the steps that it skipped."""

from abc import ABC, abstractmethod

__all__ = ["LossScaling", "NoLossScaling"]


class LossScaling(ABC):
    """Reads the loss scale and counts skipped steps since ``begin``; reading waits for the device."""

    @property
    @abstractmethod
    def source(self) -> str:
        """How skipped steps are counted."""

    @abstractmethod
    def begin(self) -> None:
        """Start counting, before the first step."""

    @abstractmethod
    def scale(self) -> float | None:
        """Return the loss scale; None where there is none."""

    @abstractmethod
    def skipped(self, batches: int | None) -> int | None:
        """Return the steps skipped since ``begin``, during which ``batches`` were trained; None if unknown."""


class NoLossScaling(LossScaling):
    """No loss scaling, or a fixed factor: no step is skipped, if that is ``certain`` (the step is Keras's own)."""

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
        """Return 0 if that is certain, else None."""
        return 0 if self._certain else None
