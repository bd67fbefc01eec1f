"""Settings: the update of ranges in training and the start of quantization, validated before any work."""

from dataclasses import dataclass
from typing import Any

from keras_precision.core.errors import InputError
from keras_precision.quantization.range_estimators import check_method

__all__ = ["RANGES", "Settings"]

RANGES = ("average", "learned", "fixed")
"""How the range of an activation is updated in training."""


@dataclass(frozen=True)
class Settings:
    """The arguments of ``quantize_aware`` apart from the model, its plan and its data."""

    ranges: str = "average"
    calibration: str = "mse"
    start_after: int = 0
    freeze_after: int | None = None
    freeze_norm_after: int | None = None

    def __post_init__(self) -> None:
        """Raise InputError for values that the types of the fields allow."""
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
        """Raise InputError where fixed ranges have no representative data."""
        if self.ranges == "fixed" and data is None:
            raise InputError(
                "Expected representative data for ranges='fixed'. Received: none. Pass representative_dataset, "
                "or use ranges that training updates: ranges='average'."
            )

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments of every layer's wrapper."""
        return {
            "learned_ranges": self.ranges == "learned",
            "start_after": self.start_after,
            "freeze_after": 0 if self.ranges == "fixed" else self.freeze_after,
            "freeze_norm_after": self.freeze_norm_after,
        }
