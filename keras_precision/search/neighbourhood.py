"""Neighbourhood: plans whose judgement takes seconds, each one layer or block away from the best so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from keras_precision.divergence import Answers
from keras_precision.search.goal import Goal
from keras_precision.search.space import Assignment, Space

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
    _scores: dict[Assignment, float] = field(default_factory=dict)
    _failed: set[Assignment] = field(default_factory=set)

    def first_round(self) -> list[Assignment]:
        """Return the baseline, and each other choice for all units that can have it."""
        choices = dict.fromkeys(choice for unit in self.space.units for choice in unit.choices)
        return list(dict.fromkeys([self.space.start, *map(self.space.everywhere, choices)]))

    def next_round(self) -> list[Assignment]:
        """Return neighbours of the best plan that were not run; the last units come first, heads are delicate."""
        if not self._scores:
            return []
        best = min(self._scores, key=self._scores.__getitem__)
        neighbours = [
            (*best[:number], choice, *best[number + 1 :])
            for number, unit in reversed(list(enumerate(self.space.units)))
            for choice in unit.choices
            if choice != best[number]
        ]
        return [plan for plan in neighbours if plan not in self._scores and plan not in self._failed][: self.round_size]

    def finalists(self, count: int) -> list[Assignment]:
        """Return the best plans.

        Args:
            count: How many.

        Returns:
            Those.
        """
        return sorted(self._scores, key=self._scores.__getitem__)[:count]

    def learn(self, assignment: Assignment, figures: Mapping[str, float], answers: Answers) -> None:
        """Take in how good a plan is.

        Args:
            assignment: The plan.
            figures: Its figures.
            answers: Not used.
        """
        self._scores[assignment] = self.goal.score(figures)

    def fail(self, assignment: Assignment) -> None:
        """Take in that a plan cannot be run.

        Args:
            assignment: The plan.
        """
        self._failed.add(assignment)
