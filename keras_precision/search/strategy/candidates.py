"""Candidates: plans that were not run, from the integer program and from neighbours of its solutions."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from keras_precision.export.plan_space import Assignment, Space
from keras_precision.search.strategy.error_model import ErrorModel
from keras_precision.search.strategy.integer_program import Program

__all__ = ["COSTS", "Candidates", "PredictedPlan"]

COSTS = ("size_bytes", "latency_ms", "bit_operations")
_STEPS = 24  # limits across the range of a cost
_TOLERANCE = 1e-9


class PredictedPlan(NamedTuple):
    """A plan that was not run, and its predicted figures."""

    assignment: Assignment
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Candidates:
    """The integer program over the choices whose effect is known, and the plans that it proposes.

    Attributes:
        costs: Name of a cost to what every column adds; those of the start are spread evenly over the units.
        columns: Unit and choice of every column.
    """

    costs: Mapping[str, Sequence[float]]
    columns: Sequence[tuple[int, str]]
    program: Program
    run: Mapping[Assignment, Mapping[str, float]]
    failed: Collection[Assignment]

    @classmethod
    def of(
        cls,
        space: Space,
        model: ErrorModel,
        run: Mapping[Assignment, Mapping[str, float]],
        failed: Collection[Assignment],
    ) -> Self | None:
        """Return the candidates after a run of the start and of single changes; None if no change is known."""
        columns = [
            (number, choice)
            for number, unit in enumerate(space.units)
            for choice in unit.choices
            if model.knows(number, choice)
        ]
        if len(columns) == len(space.units):
            return None
        base = run[space.start]
        costs: dict[str, list[float]] = {}
        for name in COSTS:
            if name in base:
                share = base[name] / len(space.units)
                costs[name] = [share + run[_single_change(space, *column)][name] - base[name] for column in columns]
        gram, cross, constant = model.gram(columns)
        program = Program([number for number, _ in columns], gram, cross, constant, np.array(list(costs.values())))
        return cls(costs, columns, program, run, failed)

    def within(self, limits: Mapping[str, float], count: int) -> list[PredictedPlan]:
        """Return the ``count`` plans with the least predicted divergence within limits of costs."""
        solutions = [self.program.solve(self._bounds(limits, share)) for share in (1.0, 0.985, 0.96)]
        divergences = {solution.picked: solution.value for solution in solutions if solution is not None}
        nearest = sorted(self.run, key=lambda plan: self._rank(plan, limits))[:3]
        for picked in [*divergences, *(self._columns_of(plan) for plan in nearest if self._is_known(plan))]:
            divergences.update(self.program.neighbours(picked))
        return self._best(divergences, limits, count)

    def along(
        self,
        name: str,
        limits: Mapping[str, float],
        count: int,
        best: Mapping[str, float] | None,
    ) -> list[PredictedPlan]:
        """Return plans below the cost of the best, at every step those with the least predicted divergence.

        ``name`` is the cost to minimize, ``best`` the figures of the best plan so far; the cheapest plan comes first.
        """
        maximum = math.inf if best is None else best[name]
        plans: dict[Assignment, PredictedPlan] = {}
        steps = [*self.steps(name, self.run.values()), maximum]
        for limit in sorted({min(step, maximum) for step in steps}):
            step_limits = {**limits, name: min(limit, limits.get(name, math.inf))}
            for plan in self.within(step_limits, max(2, count // _STEPS)):
                if plan.figures[name] < maximum:
                    plans[plan.assignment] = plan
        return sorted(plans.values(), key=lambda plan: plan.figures[name])

    def steps(self, name: str, run: Iterable[Mapping[str, float]]) -> list[float]:
        """Return ascending limits from the least possible cost to the highest of the plans that were run."""
        table = np.asarray(self.costs[name])
        units = self.program.units
        low = sum(float(table[units == unit].min()) for unit in np.unique(units))
        high = max(figures[name] for figures in run)
        return [float(limit) for limit in np.linspace(low, high, _STEPS)]

    def _best(
        self, divergences: Mapping[tuple[int, ...], float], limits: Mapping[str, float], count: int
    ) -> list[PredictedPlan]:
        plans = []
        for picked in sorted(divergences, key=lambda columns: (divergences[columns], columns)):
            assignment = tuple(self.columns[column][1] for column in picked)
            if assignment in self.run or assignment in self.failed:
                continue
            figures = dict(zip(self.costs, map(float, self.program.cost(picked)), strict=True))
            if all(figures[name] <= limit * (1 + _TOLERANCE) for name, limit in limits.items()):
                plans.append(PredictedPlan(assignment, figures))
            if len(plans) == count:
                break
        return plans

    def _bounds(self, limits: Mapping[str, float], share: float) -> list[float]:
        return [share * limits[name] if name in limits else math.inf for name in self.costs]

    def _rank(self, plan: Assignment, limits: Mapping[str, float]) -> tuple[float, float]:
        figures = self.run[plan]
        excess = sum(max(0.0, figures[name] / limit - 1) for name, limit in limits.items() if math.isfinite(limit))
        return excess, figures["divergence"]

    def _is_known(self, plan: Assignment) -> bool:
        return all(column in self.columns for column in enumerate(plan))

    def _columns_of(self, plan: Assignment) -> tuple[int, ...]:
        return tuple(self.columns.index(column) for column in enumerate(plan))


def _single_change(space: Space, number: int, choice: str) -> Assignment:
    return (*space.start[:number], choice, *space.start[number + 1 :])
