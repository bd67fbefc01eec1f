"""Outcomes: the trials of a search that ended well, and which of them are the best."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from keras_precision.environment import Environment
from keras_precision.plan import PrecisionPlan
from keras_precision.result import Measurement, Result
from keras_precision.search.goal import Goal
from keras_precision.search.space import Assignment

__all__ = ["Outcome", "best_of", "front_of"]


class Outcome(NamedTuple):
    """A trial that ended well.

    Attributes:
        trial: Its name.
        assignment: Its plan.
        figures: What its file costs and scores.
    """

    trial: str
    assignment: Assignment
    figures: Mapping[str, float]

    def result(self, plan: PrecisionPlan, samples: int) -> Result:
        """Return the outcome as a result.

        Args:
            plan: The plan of the assignment.
            samples: On how many samples it was judged.

        Returns:
            A row for each figure.
        """
        whole = ("size_bytes", "bit_operations")
        rows = [
            Measurement(f"{self.trial}.tflite", name, int(value) if name in whole else value)
            for name, value in self.figures.items()
        ]
        how = f"{samples} samples of the validation data, on which plans were chosen"
        sources = {"divergence": how, "metric_drop": how}
        if "latency_ms" in self.figures:
            sources["latency_ms"] = "calls in turn with the baseline's, median, on 1 thread"
        return Result(self.trial, tuple(rows), Environment.here(backend="litert", sources=sources), plan)


def best_of(outcomes: Sequence[Outcome], goal: Goal) -> Outcome | None:
    """Return the best plan within the budget.

    Args:
        outcomes: Trials.
        goal: What is looked for.

    Returns:
        The best, of equals the one that diverges least; None where none keeps the budget.
    """
    kept = [each for each in outcomes if goal.budget.is_satisfied_by(each.figures)]
    return min(kept, key=lambda each: (goal.cost(each.figures), each.figures["divergence"]), default=None)


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
