"""Settings: how ranges follow training, and when quantization begins; checked before any work is done."""

from dataclasses import dataclass
from typing import Any

from keras_precision.core.errors import InputError
from keras_precision.quantization.range_estimators import check_method

__all__ = ["RANGES", "Settings"]

RANGES = ("average", "learned", "fixed")
"""How the range of an activation follows training."""


@dataclass(frozen=True)
class Settings:
    """What ``quantize_aware`` is asked for, apart from the model, its plan and its data.

    Attributes:
        ranges: One of ``RANGES``.
        calibration: How start ranges are chosen from representative data.
        start_after: Training steps before anything is quantized.
        freeze_after: Training steps after which averaged ranges stay; None for never.
        freeze_norm_after: Training steps after which batch normalizations stay; None for never.
    """

    ranges: str = "average"
    calibration: str = "mse"
    start_after: int = 0
    freeze_after: int | None = None
    freeze_norm_after: int | None = None

    def __post_init__(self) -> None:
        """Check what the type of each field cannot say."""
        check_method(self.calibration, 99.99)
        if self.ranges not in RANGES:
            raise InputError(f"Expected ranges to be one of {', '.join(RANGES)}. Received: {self.ranges!r}.")
        for name in ("start_after", "freeze_after", "freeze_norm_after"):
            steps = getattr(self, name)
            if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 0):
                raise InputError(
                    f"Expected {name} to be a number of training steps of at least 0. Received: {steps!r}."
                )

    def check_data(self, data: Any) -> None:
        """Raise where fixed ranges have nothing to start from.

        Args:
            data: The representative data; None where there are none.

        Raises:
            InputError: They are asked for without data.
        """
        if self.ranges == "fixed" and data is None:
            raise InputError(
                "Expected representative data for ranges='fixed'. Received: none. Give representative_dataset, "
                "or let the ranges follow training: ranges='average'."
            )

    def options(self) -> dict[str, Any]:
        """Return what the wrapper of each layer is given.

        Returns:
            Its keyword arguments.
        """
        return {
            "learned_ranges": self.ranges == "learned",
            "start_after": self.start_after,
            "freeze_after": 0 if self.ranges == "fixed" else self.freeze_after,
            "freeze_norm_after": self.freeze_norm_after,
        }
