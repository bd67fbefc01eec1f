"""Goal: the figure to optimize, and the order of plans by it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from keras_precision.search.objective.budget import Budget

__all__ = ["Goal"]


@dataclass(frozen=True)
class Goal:
    """A figure to optimize within a budget.

    Attributes:
        figure: ``"size_bytes"``, ``"latency_ms"``, ``"bit_operations"``, ``"divergence"``, the name of the metric, or
            ``"front"`` for the Pareto front of cost and quality.
        scale: The figure of the float model, which sets the penalty of a plan beyond the budget.
    """

    figure: str
    direction: str
    budget: Budget
    scale: float = 1.0

    def cost(self, figures: Mapping[str, float]) -> float:
        """Return the figure of a plan, negated if more is better; for a front, the divergence."""
        value = figures.get("divergence" if self.figure == "front" else self.figure, math.nan)
        return -value if self.direction == "max" else value

    def score(self, figures: Mapping[str, float]) -> float:
        """Return the cost plus ``scale * (1 + excess)`` for a plan beyond the budget, for oracles that know no budgets."""
        excess = self.budget.excess(figures)
        return self.cost(figures) + (self.scale * (1 + excess) if excess > 0 else 0.0)
