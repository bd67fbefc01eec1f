"""Neighbourhood: plans whose judgement takes seconds, each one layer or block away from the best so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from keras_precision.export.plan_space import Assignment, Space
from keras_precision.scoring.divergence import Answers
from keras_precision.search.objective.goal import Goal

__all__ = ["Neighbourhood"]


@dataclass
class Neighbourhood:
    """Rounds of plans: first each choice for all units, then what differs from the best in one unit.

    It needs nothing but scores, and ends where no plan next to the best one is better.

    Attributes:
        space: The plans.
        goal: What is looked for.
        round_size: Plans of a round, after the first.
        gap: Not known.
    """

    space: Space
    goal: Goal
    round_size: int = 3
    gap: float | None = None
    _figures: dict[Assignment, dict[str, float]] = field(default_factory=dict)
    _failed: set[Assignment] = field(default_factory=set)

    def first_round(self) -> list[Assignment]:
        """Return the baseline, and each other choice for all units that can have it."""
        choices = dict.fromkeys(choice for unit in self.space.units for choice in unit.choices)
        return list(dict.fromkeys([self.space.start, *map(self.space.everywhere, choices)]))

    def next_round(self) -> list[Assignment]:
        """Return what is next to the plan that promises most, and was not run; the last units come first: heads are delicate.

        While a plan beyond the budget costs less than the best within it, its units are raised to the baseline one at a
        time. After that, each unit of the best plan is changed.
        """
        if not self._figures:
            return []
        best = min(self._figures, key=lambda plan: self.goal.score(self._figures[plan]))
        here = self.goal.cost(self._figures[best])
        cheaper = [plan for plan, figures in self._figures.items() if self.goal.cost(figures) < here]
        for plan in sorted(cheaper, key=lambda plan: self.goal.budget.excess(self._figures[plan])):
            raised = self._fresh([each for each in self._neighbours(plan) if _raised(each, self.space.start, plan)])
            if raised:
                return raised[: self.round_size]
        return self._fresh(self._neighbours(best))[: self.round_size]

    def _neighbours(self, plan: Assignment) -> list[Assignment]:
        return [
            (*plan[:number], choice, *plan[number + 1 :])
            for number, unit in reversed(list(enumerate(self.space.units)))
            for choice in unit.choices
            if choice != plan[number]
        ]

    def _fresh(self, plans: list[Assignment]) -> list[Assignment]:
        return [plan for plan in plans if plan not in self._figures and plan not in self._failed]

    def finalists(self, count: int) -> list[Assignment]:
        """Return the best plans.

        Args:
            count: How many.

        Returns:
            Those.
        """
        return sorted(self._figures, key=lambda plan: self.goal.score(self._figures[plan]))[:count]

    def learn(self, assignment: Assignment, figures: Mapping[str, float], answers: Answers) -> None:
        """Take in how good a plan is.

        Args:
            assignment: The plan.
            figures: Its figures.
            answers: Not used.
        """
        self._figures[assignment] = dict(figures)

    def fail(self, assignment: Assignment) -> None:
        """Take in that a plan cannot be run.

        Args:
            assignment: The plan.
        """
        self._failed.add(assignment)


def _raised(plan: Assignment, baseline: Assignment, before: Assignment) -> bool:
    """Whether the unit that changed is as in the baseline now."""
    return all(now in (was, usual) for now, was, usual in zip(plan, before, baseline, strict=True))
