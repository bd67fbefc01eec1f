"""Outcomes: the trials of a search that ended well, and which of them are the best."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from keras_precision.core.environment import Environment
from keras_precision.core.errors import SearchError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.export.plan_space import Assignment
from keras_precision.search.objective.budget import Budget
from keras_precision.search.objective.goal import Goal

__all__ = ["Outcome", "best_of", "evenly", "front_of", "none_within"]


class Outcome(NamedTuple):
    """A trial that ended well.

    Attributes:
        trial: Its name.
        assignment: Its plan.
        figures: What it costs and scores.
        is_finalist: Whether it was judged by more than the others.
    """

    trial: str
    assignment: Assignment
    figures: Mapping[str, float]
    is_finalist: bool = False

    @property
    def trial_id(self) -> str:
        """What KerasTuner calls the trial."""
        return self.trial.removeprefix("trial ")

    def result(self, plan: PrecisionPlan, ending: str, backend: str, sources: Mapping[str, str]) -> Result:
        """Return the outcome as a result.

        Args:
            plan: The plan of the assignment.
            ending: Of the file that was judged, or nothing.
            backend: What computed.
            sources: Figure to how it was got.

        Returns:
            A row for each figure.
        """
        whole = ("size_bytes", "bit_operations")
        rows = [
            Measurement(f"{self.trial}{ending}", name, int(value) if name in whole else value)
            for name, value in self.figures.items()
        ]
        return Result(self.trial, tuple(rows), Environment.here(backend=backend, sources=sources), plan)


def best_of(outcomes: Sequence[Outcome], goal: Goal) -> Outcome | None:
    """Return the best plan within the budget.

    Args:
        outcomes: Trials.
        goal: What is looked for.

    Returns:
        The best, of equals the one that diverges least; None where none keeps the budget.
    """
    kept = [each for each in outcomes if goal.budget.is_satisfied_by(each.figures)]
    return min(kept, key=lambda each: (goal.cost(each.figures), each.figures.get("divergence", 0.0)), default=None)


def none_within(outcomes: Sequence[Outcome], budget: Budget) -> NoReturn:
    """Say that no trial keeps a budget, and which is the nearest.

    Args:
        outcomes: All trials.
        budget: The budget.

    Raises:
        SearchError: Always.
    """
    if not outcomes:
        raise SearchError("Expected trials that ended well. Received: none. Call search first.")
    nearest = min(outcomes, key=lambda each: budget.excess(each.figures))
    told = ", ".join(f"{name} {nearest.figures[name]:.6g}" for name in budget.limits())
    raise SearchError(
        f"Expected a plan within {budget}. Received: none among {len(outcomes)}; the nearest has {told}. "
        "Widen the budget, or give more choices."
    )


def front_of(outcomes: Sequence[Outcome], axes: Sequence[str]) -> list[Outcome]:
    """Return the plans that no other beats.

    Args:
        outcomes: Trials.
        axes: Figures of which less is better.

    Returns:
        Those of which no other is as good on every axis and better on one, each point once; by the first axis.
    """
    points: dict[tuple[float, ...], Outcome] = {}
    for each in outcomes:
        points.setdefault(tuple(each.figures[axis] for axis in axes), each)
    kept = [
        point
        for point in points
        if not any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points)
    ]
    return [points[point] for point in sorted(kept)]


def evenly(outcomes: Sequence[Outcome], count: int) -> list[Outcome]:
    """Return some of them, evenly spread, the first and the last among them.

    Args:
        outcomes: In an order.
        count: How many at the most.

    Returns:
        Those.
    """
    if len(outcomes) <= count:
        return list(outcomes)
    step = (len(outcomes) - 1) / max(1, count - 1)
    return [outcomes[round(number * step)] for number in range(count)]
