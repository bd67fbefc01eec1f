"""Budget: what a plan may cost."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from keras_precision.core.errors import InputError

__all__ = ["Budget"]


@dataclass(frozen=True)
class Budget:
    """What a plan may cost; a limit that is None is no limit.

    Attributes:
        max_size_bytes: Size of the file, its card included.
        max_metric_drop: How much worse than the float model the metric may be on the validation data, in its own unit:
            0.005 is half a percent of accuracy, or 0.005 of a mean absolute error.
        max_latency_ms: Median time of a call on one thread, on this machine.
        max_divergence: How far the answers may be from the float model's; needs no labels.

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
        """Check that each limit can be met by something."""
        for name, limit in self._given():
            if not isinstance(limit, int | float) or isinstance(limit, bool) or math.isnan(limit):
                raise InputError(f"Expected {name} to be a number or None. Received: {limit!r}.")
            lowest = 0.0
            if limit < lowest or (limit == 0 and name in ("max_size_bytes", "max_latency_ms")):
                raise InputError(f"Expected {name} to be positive. Received: {limit!r}.")

    def limits(self) -> dict[str, float]:
        """Return the limits that are set.

        Returns:
            Name of a figure, such as ``"size_bytes"``, to the most that it may be.
        """
        return {name.removeprefix("max_"): float(limit) for name, limit in self._given()}

    def is_satisfied_by(self, figures: Mapping[str, float]) -> bool:
        """Tell whether figures keep within every limit.

        Args:
            figures: Name of a figure (``"size_bytes"``, ``"metric_drop"``, ``"latency_ms"``, ``"divergence"``) to its value.

        Returns:
            Whether they do. A figure that is limited and missing, or NaN, does not.
        """
        return self.excess(figures) == 0

    def excess(self, figures: Mapping[str, float]) -> float:
        """Return by how much figures exceed the limits.

        Args:
            figures: As for ``is_satisfied_by``.

        Returns:
            The sum over the limits of the part by which each is exceeded: 0.1 is ten percent, or
            0.1 itself where the limit is 0; infinity for a figure that is missing.
        """
        total = 0.0
        for name, limit in self.limits().items():
            value = figures.get(name, math.nan)
            if math.isnan(value):
                return math.inf
            total += max(0.0, value - limit) / (limit or 1.0)
        return total

    def _given(self) -> Iterator[tuple[str, float]]:
        for each in fields(self):
            limit = getattr(self, each.name)
            if limit is not None:
                yield each.name, limit
