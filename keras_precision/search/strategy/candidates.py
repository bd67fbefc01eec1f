"""Candidates: plans that have not been run, found by the integer program and around what it finds."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from keras_precision.export.plan_space import Assignment, Space
from keras_precision.search.strategy.error_model import ErrorModel
from keras_precision.search.strategy.integer_program import Program

__all__ = ["COSTS", "Candidates", "Guess"]

COSTS = ("size_bytes", "latency_ms", "bit_operations")
_STEPS = 24  # limits across the range of a cost
_ABOVE = 1e-9


class Guess(NamedTuple):
    """A plan that was not run, and what it should cost.

    Attributes:
        assignment: The plan.
        figures: Its figures, as predicted.
    """

    assignment: Assignment
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Candidates:
    """Where plans to run come from.

    Attributes:
        costs: Name of each cost to what each column adds; those of the start are spread evenly over the units.
        columns: Unit and choice of each column.
        program: The integer program over them.
        run: The figures of the plans that were run.
        failed: Plans that could not be run.
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
        """Return the candidates that the plans so far allow to tell.

        Args:
            space: All plans.
            model: What each choice does to the answers.
            run: Figures of the plans that were run, among them the start and each choice alone.
            failed: Plans that could not be run.

        Returns:
            The candidates; None where no choice is known but the start.
        """
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
                costs[name] = [share + run[_alone(space, *column)][name] - base[name] for column in columns]
        gram, cross, constant = model.gram(columns)
        program = Program([number for number, _ in columns], gram, cross, constant, np.array(list(costs.values())))
        return cls(costs, columns, program, run, failed)

    def within(self, limits: Mapping[str, float], most: int) -> list[Guess]:
        """Return the plans within limits that should diverge least.

        Args:
            limits: Name of a cost to its limit.
            most: How many.

        Returns:
            The plans, the best first.
        """
        starts = [self.program.solve(self._bounds(limits, share)) for share in (1.0, 0.985, 0.96)]
        best = {found.picked: found.value for found in starts if found is not None}
        nearest = sorted(self.run, key=lambda plan: self._rank(plan, limits))[:3]
        for picked in [*best, *(self._columns_of(plan) for plan in nearest if self._can_be_told(plan))]:
            best.update(self.program.neighbours(picked))
        return self._best(best, limits, most)

    def along(
        self,
        name: str,
        limits: Mapping[str, float],
        most: int,
        best: Mapping[str, float] | None,
    ) -> list[Guess]:
        """Return plans that cost less than the best, at each cost those that should diverge least.

        Args:
            name: The cost that is to be small.
            limits: Name of a cost to its limit.
            most: How many.
            best: The figures of the best plan so far; None where there is none.

        Returns:
            The plans, the cheapest first.
        """
        most_here = math.inf if best is None else best[name]
        found: dict[Assignment, Guess] = {}
        steps = [*self.steps(name, self.run.values()), most_here]
        for limit in sorted({min(step, most_here) for step in steps}):
            for guess in self.within({**limits, name: min(limit, limits.get(name, math.inf))}, max(2, most // _STEPS)):
                if guess.figures[name] < most_here:
                    found[guess.assignment] = guess
        return sorted(found.values(), key=lambda guess: guess.figures[name])

    def steps(self, name: str, run: Iterable[Mapping[str, float]]) -> list[float]:
        """Return limits across the range of a cost.

        Args:
            name: The cost.
            run: Figures of the plans that were run.

        Returns:
            Limits, in ascending order.
        """
        table = np.asarray(self.costs[name])
        units = self.program.units
        low = sum(float(table[units == unit].min()) for unit in np.unique(units))
        high = max(each[name] for each in run)
        return [float(limit) for limit in np.linspace(low, high, _STEPS)]

    def _best(self, found: Mapping[tuple[int, ...], float], limits: Mapping[str, float], most: int) -> list[Guess]:
        kept = []
        for picked in sorted(found, key=lambda each: (found[each], each)):
            assignment = tuple(self.columns[column][1] for column in picked)
            if assignment in self.run or assignment in self.failed:
                continue
            figures = dict(zip(self.costs, map(float, self.program.cost(picked)), strict=True))
            if all(figures[name] <= limit * (1 + _ABOVE) for name, limit in limits.items()):
                kept.append(Guess(assignment, figures))
            if len(kept) == most:
                break
        return kept

    def _bounds(self, limits: Mapping[str, float], share: float) -> list[float]:
        return [share * limits[name] if name in limits else math.inf for name in self.costs]

    def _rank(self, plan: Assignment, limits: Mapping[str, float]) -> tuple[float, float]:
        figures = self.run[plan]
        beyond = sum(max(0.0, figures[name] / limit - 1) for name, limit in limits.items() if math.isfinite(limit))
        return beyond, figures["divergence"]

    def _can_be_told(self, plan: Assignment) -> bool:
        return all(column in self.columns for column in enumerate(plan))

    def _columns_of(self, plan: Assignment) -> tuple[int, ...]:
        return tuple(self.columns.index(column) for column in enumerate(plan))


def _alone(space: Space, number: int, choice: str) -> Assignment:
    return (*space.start[:number], choice, *space.start[number + 1 :])
