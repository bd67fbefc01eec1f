"""Neighbourhood: local search around the best plan, for evaluations that take seconds or more."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from keras_precision.export.plan_space import Assignment, Space
from keras_precision.scoring.divergence import Outputs
from keras_precision.search.objective.goal import Goal

__all__ = ["Neighbourhood"]


@dataclass
class Neighbourhood:
    """Rounds of plans: first one choice for all units, then plans that differ from the best in one unit.

    It needs figures only, no predictions, and ends when no neighbour of the best plan is better. The gap is unknown.
    """

    space: Space
    goal: Goal
    round_size: int = 3
    gap: float | None = None
    _figures: dict[Assignment, dict[str, float]] = field(default_factory=dict)
    _failed: set[Assignment] = field(default_factory=set)

    def first_round(self) -> list[Assignment]:
        """Return the baseline, and the plans with another choice for all units that have it."""
        choices = dict.fromkeys(choice for unit in self.space.units for choice in unit.choices)
        return list(dict.fromkeys([self.space.start, *map(self.space.everywhere, choices)]))

    def next_round(self) -> list[Assignment]:
        """Return neighbours of the most promising plan, with changes of the last units first: heads are most sensitive.

        While a plan beyond the budget costs less than the best within it, its units return to the baseline one at a
        time. After that, the units of the best plan change one at a time.
        """
        if not self._figures:
            return []
        best = min(self._figures, key=lambda plan: self.goal.score(self._figures[plan]))
        here = self.goal.cost(self._figures[best])
        cheaper = [plan for plan, figures in self._figures.items() if self.goal.cost(figures) < here]
        for plan in sorted(cheaper, key=lambda plan: self.goal.budget.excess(self._figures[plan])):
            neighbours = [other for other in self._neighbours(plan) if _is_closer(other, plan, self.space.start)]
            closer = self._untried(neighbours)
            if closer:
                return closer[: self.round_size]
        return self._untried(self._neighbours(best))[: self.round_size]

    def _neighbours(self, plan: Assignment) -> list[Assignment]:
        return [
            (*plan[:number], choice, *plan[number + 1 :])
            for number, unit in reversed(list(enumerate(self.space.units)))
            for choice in unit.choices
            if choice != plan[number]
        ]

    def _untried(self, plans: list[Assignment]) -> list[Assignment]:
        return [plan for plan in plans if plan not in self._figures and plan not in self._failed]

    def finalists(self, count: int) -> list[Assignment]:
        """Return the ``count`` best plans."""
        return sorted(self._figures, key=lambda plan: self.goal.score(self._figures[plan]))[:count]

    def learn(self, assignment: Assignment, figures: Mapping[str, float], predictions: Outputs) -> None:
        """Add the figures of a plan; its predictions are not used."""
        self._figures[assignment] = dict(figures)

    def fail(self, assignment: Assignment) -> None:
        """Add a plan that cannot be run."""
        self._failed.add(assignment)


def _is_closer(plan: Assignment, previous: Assignment, baseline: Assignment) -> bool:
    """Whether every unit of a plan is as in the previous plan or as in the baseline."""
    return all(choice in (before, start) for choice, before, start in zip(plan, previous, baseline, strict=True))
