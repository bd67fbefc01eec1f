"""Goal: which of two plans is the better one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from keras_precision.search.objective.budget import Budget

__all__ = ["Goal"]


@dataclass(frozen=True)
class Goal:
    """A figure to be made as good as the budget allows.

    Attributes:
        figure: ``"size_bytes"``, ``"latency_ms"``, ``"bit_operations"``, ``"divergence"``, the name of the metric, or
            ``"front"``: no plan is the best, and those that no other beats in both cost and quality are looked for.
        direction: ``"min"`` or ``"max"``.
        budget: What must be kept.
        scale: The figure of the float model, or what stands for it: the size of a step that matters.
    """

    figure: str
    direction: str
    budget: Budget
    scale: float = 1.0

    def cost(self, figures: Mapping[str, float]) -> float:
        """Return the figure so that less is better.

        Args:
            figures: Of a plan.

        Returns:
            The figure, negated where more is better; that of a front is the divergence.
        """
        value = figures.get("divergence" if self.figure == "front" else self.figure, math.nan)
        return -value if self.direction == "max" else value

    def score(self, figures: Mapping[str, float]) -> float:
        """Return one number that sorts plans, for oracles that know no budgets: less is better.

        Args:
            figures: Of a plan.

        Returns:
            The cost; for a plan beyond the budget, ``scale`` more, and as much again for each time that it exceeds a limit.
        """
        excess = self.budget.excess(figures)
        return self.cost(figures) + (self.scale * (1 + excess) if excess > 0 else 0.0)
