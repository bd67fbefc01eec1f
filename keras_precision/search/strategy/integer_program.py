"""Integer program for the least divergence within limits, with one precision per unit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp

__all__ = ["Program", "Solution"]

Array = npt.NDArray[Any]

_MAX_PAIRS = 400  # products of two columns in the program; with more, HiGHS becomes too slow
_TIME_LIMIT_S = 5.0  # of HiGHS for one program


@dataclass(frozen=True)
class Solution:
    """A column per unit, its divergence in the program, and a lower bound of the divergence within the limits.

    The bound is minus infinity where it is unknown.
    """

    picked: tuple[int, ...]
    value: float
    bound: float


class Program:
    """Minimizes ``x G x + 2 g x + g0`` over one column per unit, with linear costs below limits.

    The products are linearized (G. P. McCormick, 1976) for ``scipy.optimize.milp``. If there are too many of them, the
    program is solved with the diagonal alone, and the solution is improved by moves of one or two units; its bound is
    then unknown.

    Args:
        units: The unit of every column; the columns of a unit are adjacent.
        gram: Inner products of the columns' errors, shape (k, k).
        cross: Their inner products with the error of the start, shape (k,).
        constant: The divergence of the start.
        costs: One row per kind of cost, shape (c, k).
    """

    def __init__(self, units: Sequence[int], gram: Array, cross: Array, constant: float, costs: Array) -> None:
        self.units = np.asarray(units)
        self.gram, self.cross, self.constant = gram, cross, constant
        self.costs = np.atleast_2d(costs)
        self._count = int(self.units.max()) + 1
        self._linear = np.diag(gram) + 2 * cross  # since x is 0 or 1

    def value(self, picked: Sequence[int]) -> float:
        """Return the quadratic form for one column per unit."""
        x = self._vector(picked)
        return float(x @ self.gram @ x + 2 * self.cross @ x + self.constant)

    def cost(self, picked: Sequence[int]) -> Array:
        """Return the costs of one column per unit, one per kind."""
        return np.asarray(self.costs[:, list(picked)].sum(axis=1))

    def solve(self, limits: Sequence[float]) -> Solution | None:
        """Return the solution with the least divergence, or None if nothing is within the limits (infinity for none)."""
        pairs = [
            (one, other)
            for one in range(len(self.units))
            for other in range(one + 1, len(self.units))
            if self.units[one] != self.units[other] and self.gram[one, other] != 0
        ]
        exact = len(pairs) <= _MAX_PAIRS
        solved = self._integer_program(pairs if exact else [], np.asarray(limits, dtype=np.float64))
        if solved is None:
            return None
        picked, bound = solved
        improved = self.improve(picked, limits)
        return Solution(improved, self.value(improved), bound if exact else -np.inf)

    def improve(self, picked: Sequence[int], limits: Sequence[float]) -> tuple[int, ...]:
        """Move one or two units at a time as long as that lowers the divergence within the limits."""
        now = list(picked)
        maximum = np.asarray(limits, dtype=np.float64)
        for _ in range(4 * self._count):
            moves = [column for column in range(len(self.units)) if column not in now]
            change, cost = self._effects(now, moves)
            slack = maximum - self.cost(now)
            allowed = np.all(cost <= slack[:, None, None] + 1e-9, axis=0)
            change = np.where(allowed, change, np.inf)
            one, other = np.unravel_index(int(np.argmin(change)), change.shape)
            if not change[one, other] < -1e-12:
                break
            for column in {moves[int(one)], moves[int(other)]}:
                now[self.units[column]] = column
        return tuple(now)

    def neighbours(self, picked: Sequence[int]) -> list[tuple[tuple[int, ...], float]]:
        """Return the solutions that differ in one or two units, with their divergences."""
        moves = [column for column in range(len(self.units)) if column not in picked]
        change, _ = self._effects(list(picked), moves)
        here, neighbours = self.value(picked), []
        for one in range(len(moves)):
            for other in range(one, len(moves)):
                if one == other or self.units[moves[one]] != self.units[moves[other]]:
                    moved = list(picked)
                    for column in (moves[one], moves[other]):
                        moved[self.units[column]] = column
                    neighbours.append((tuple(moved), here + float(change[one, other])))
        return neighbours

    def _effects(self, now: Sequence[int], moves: Sequence[int]) -> tuple[Array, Array]:
        """Return what pairs of moves add to the divergence, (m, m), and to the costs, (c, m, m); diagonal: one move."""
        steps = np.zeros((len(moves), len(self.units)))
        for row, column in enumerate(moves):
            steps[row, column] = 1
            steps[row, now[self.units[column]]] = -1
        x = self._vector(now)
        curvature = steps @ self.gram @ steps.T
        single = 2 * steps @ (self.gram @ x + self.cross) + np.diag(curvature)
        change = single[:, None] + single[None, :] + 2 * curvature
        np.fill_diagonal(change, single)
        cost = self.costs @ steps.T
        total = cost[:, :, None] + cost[:, None, :]
        for row in total:
            np.fill_diagonal(row, np.diag(row) / 2)
        same = self.units[list(moves)][:, None] == self.units[list(moves)][None, :]
        change[same & ~np.eye(len(moves), dtype=bool)] = np.inf  # a unit takes one column
        return change, total

    def _integer_program(self, pairs: Sequence[tuple[int, int]], limits: Array) -> tuple[tuple[int, ...], float] | None:
        """Return one column per unit and the bound; pairs are the columns whose products are linearized."""
        columns, total = len(self.units), len(self.units) + len(pairs)
        rows, low, high = [], [], []

        def constrain(entries: dict[int, float], minimum: float, maximum: float) -> None:
            row = np.zeros(total)
            row[list(entries)] = list(entries.values())
            rows.append(row)
            low.append(minimum)
            high.append(maximum)

        for unit in range(self._count):
            constrain(dict.fromkeys(np.flatnonzero(self.units == unit).tolist(), 1.0), 1, 1)
        for row, limit in zip(self.costs, limits, strict=True):
            if np.isfinite(limit):
                constrain(dict(enumerate(row)), -np.inf, limit)
        for number, (one, other) in enumerate(pairs, start=columns):
            if self.gram[one, other] > 0:
                constrain({one: -1, other: -1, number: 1}, -1, np.inf)
            else:
                constrain({number: 1, one: -1}, -np.inf, 0)
                constrain({number: 1, other: -1}, -np.inf, 0)
        objective = np.concatenate([self._linear, [2 * self.gram[pair] for pair in pairs]])
        scale = np.abs(objective).max() or 1.0  # HiGHS's tolerances are absolute
        solution = milp(
            objective / scale,
            integrality=np.concatenate([np.ones(columns), np.zeros(len(pairs))]),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(np.array(rows), np.array(low), np.array(high)),
            options={"time_limit": _TIME_LIMIT_S},
        )
        if solution.x is None:
            return None
        picked = tuple(
            int(members[np.argmax(solution.x[members])])
            for members in (np.flatnonzero(self.units == unit) for unit in range(self._count))
        )
        return picked, float(solution.mip_dual_bound * scale + self.constant)

    def _vector(self, picked: Sequence[int]) -> Array:
        x = np.zeros(len(self.units))
        x[list(picked)] = 1
        return x
