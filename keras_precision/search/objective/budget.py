"""Budget: limits of the cost and quality of a plan."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from keras_precision.core.errors import InputError

__all__ = ["Budget"]


@dataclass(frozen=True)
class Budget:
    """Limits of the cost and quality of a plan; None is no limit.

    Attributes:
        max_size_bytes: Size of the file with its card, in bytes.
        max_metric_drop: How much worse than the float model the metric may be on the validation data, in the metric's
            unit: 0.005 is half a percent of accuracy, or 0.005 of a mean absolute error.
        max_latency_ms: Median time of a call on one thread of this machine, in milliseconds.
        max_divergence: Divergence of the predictions from the float model's; needs no labels.

    Example:
        >>> budget = Budget(max_size_bytes=50_000, max_metric_drop=0.005)
        >>> budget.is_satisfied_by({"size_bytes": 48_000, "metric_drop": 0.002})
        True
        >>> budget.is_satisfied_by({"size_bytes": 48_000, "metric_drop": 0.01})
        False
    """

    max_size_bytes: float | None = None
    max_metric_drop: float | None = None
    max_latency_ms: float | None = None
    max_divergence: float | None = None

    def __post_init__(self) -> None:
        """Check that every limit can be met."""
        for name, limit in self._set_limits():
            if not isinstance(limit, int | float) or isinstance(limit, bool) or math.isnan(limit):
                raise InputError(f"Expected {name} to be a number or None. Received: {limit!r}.")
            if limit < 0 or (limit == 0 and name in ("max_size_bytes", "max_latency_ms")):
                raise InputError(f"Expected {name} to be positive. Received: {limit!r}.")

    def limits(self) -> dict[str, float]:
        """Return the limits that are set.

        Returns:
            Name of a figure, such as ``"size_bytes"``, to its maximum.
        """
        return {name.removeprefix("max_"): float(limit) for name, limit in self._set_limits()}

    def is_satisfied_by(self, figures: Mapping[str, float]) -> bool:
        """Return whether figures are within every limit.

        Args:
            figures: Name of a figure (``"size_bytes"``, ``"metric_drop"``, ``"latency_ms"``, ``"divergence"``) to its value.

        Returns:
            Whether they are. A limited figure that is missing or NaN is not.
        """
        return self.excess(figures) == 0

    def excess(self, figures: Mapping[str, float]) -> float:
        """Return by how much figures exceed the limits.

        Args:
            figures: As for ``is_satisfied_by``.

        Returns:
            The sum over the limits of the relative excess: 0.1 is ten percent of the limit, or 0.1 itself if the limit
            is 0; infinity for a missing figure.
        """
        total = 0.0
        for name, limit in self.limits().items():
            value = figures.get(name, math.nan)
            if math.isnan(value):
                return math.inf
            total += max(0.0, value - limit) / (limit or 1.0)
        return total

    def _set_limits(self) -> Iterator[tuple[str, float]]:
        for field in fields(self):
            limit = getattr(self, field.name)
            if limit is not None:
                yield field.name, limit
