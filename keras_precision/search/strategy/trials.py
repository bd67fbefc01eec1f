"""TrialOutcome: a completed trial of a search; selection of the best outcomes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from keras_precision.core.environment import Environment
from keras_precision.core.errors import SearchError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.export.plan_space import Assignment
from keras_precision.search.objective.budget import Budget
from keras_precision.search.objective.goal import Goal

__all__ = ["TrialOutcome", "best_of", "front_of", "raise_infeasible", "spread_evenly"]


class TrialOutcome(NamedTuple):
    """The name, the plan and the figures of a completed trial; a finalist was trained before its evaluation."""

    trial: str
    assignment: Assignment
    figures: Mapping[str, float]
    is_finalist: bool = False

    @property
    def trial_id(self) -> str:
        """The trial's ID in KerasTuner."""
        return self.trial.removeprefix("trial ")

    def result(self, plan: PrecisionPlan, suffix: str, backend: str, sources: Mapping[str, str]) -> Result:
        """Return the figures as a result; ``suffix`` is that of the evaluated file, ``sources`` is figure to its source."""
        counts = ("size_bytes", "bit_operations")
        rows = [
            Measurement(f"{self.trial}{suffix}", name, int(value) if name in counts else value)
            for name, value in self.figures.items()
        ]
        return Result(self.trial, tuple(rows), Environment.here(backend=backend, sources=sources), plan)


def best_of(outcomes: Sequence[TrialOutcome], goal: Goal) -> TrialOutcome | None:
    """Return the best outcome within the budget, of equals the one with the least divergence; None if there is none."""
    feasible = [outcome for outcome in outcomes if goal.budget.is_satisfied_by(outcome.figures)]
    return min(
        feasible,
        key=lambda outcome: (goal.cost(outcome.figures), outcome.figures.get("divergence", 0.0)),
        default=None,
    )


def raise_infeasible(outcomes: Sequence[TrialOutcome], budget: Budget) -> NoReturn:
    """Raise ``SearchError``: no outcome is within the budget; the message has the nearest."""
    if not outcomes:
        raise SearchError("Expected trials that ended well. Received: none. Call search first.")
    nearest = min(outcomes, key=lambda outcome: budget.excess(outcome.figures))
    figures = ", ".join(f"{name} {nearest.figures[name]:.6g}" for name in budget.limits())
    raise SearchError(
        f"Expected a plan within {budget}. Received: none among {len(outcomes)}; the nearest has {figures}. "
        "Widen the budget, or add choices."
    )


def front_of(outcomes: Sequence[TrialOutcome], axes: Sequence[str]) -> list[TrialOutcome]:
    """Return the Pareto front over figures to minimize, every point once, sorted by the first axis."""
    points: dict[tuple[float, ...], TrialOutcome] = {}
    for outcome in outcomes:
        points.setdefault(tuple(outcome.figures[axis] for axis in axes), outcome)
    front = [
        point
        for point in points
        if not any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points)
    ]
    return [points[point] for point in sorted(front)]


def spread_evenly(outcomes: Sequence[TrialOutcome], count: int) -> list[TrialOutcome]:
    """Return at most ``count`` outcomes, evenly spread, with the first and the last."""
    if len(outcomes) <= count:
        return list(outcomes)
    step = (len(outcomes) - 1) / max(1, count - 1)
    return [outcomes[round(number * step)] for number in range(count)]
