"""The integer program of a search: the least divergence within limits, one precision for each unit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp

__all__ = ["Program", "Solution"]

Array = npt.NDArray[Any]

_MOST_PAIRS = 400  # of products of two columns that the integer program is given
_SECONDS = 5.0  # that HiGHS may take for one program


@dataclass(frozen=True)
class Solution:
    """A choice for each unit.

    Attributes:
        picked: The column that each unit takes.
        value: The divergence that the program gives it.
        bound: No choice within the limits has less, by the same program; minus infinity where that is not known.
    """

    picked: tuple[int, ...]
    value: float
    bound: float


class Program:
    """Minimises ``x G x + 2 g x + g0`` over one column for each unit, with linear costs below limits.

    The products are linearised (G. P. McCormick, 1976) and given to ``scipy.optimize.milp``. Where there are too many
    of them, the program is solved with the diagonal alone, and the solution is improved by moving one unit, or two at
    a time, as long as that helps; its bound is then not known.

    Args:
        units: For each column, the unit that it belongs to. Columns of a unit stand together.
        gram: Inner products of the columns' errors, shape (k, k).
        cross: Their inner products with the error of the start, shape (k,).
        constant: The divergence of the start.
        costs: One row for each kind of cost, shape (c, k).
    """

    def __init__(self, units: Sequence[int], gram: Array, cross: Array, constant: float, costs: Array) -> None:
        self.units = np.asarray(units)
        self.gram, self.cross, self.constant = gram, cross, constant
        self.costs = np.atleast_2d(costs)
        self._count = int(self.units.max()) + 1
        self._linear = np.diag(gram) + 2 * cross  # since x is 0 or 1

    def value(self, picked: Sequence[int]) -> float:
        """Return the divergence of a choice.

        Args:
            picked: The column that each unit takes.

        Returns:
            As the quadratic form has it.
        """
        x = self._vector(picked)
        return float(x @ self.gram @ x + 2 * self.cross @ x + self.constant)

    def cost(self, picked: Sequence[int]) -> Array:
        """Return the costs of a choice.

        Args:
            picked: The column that each unit takes.

        Returns:
            One of each kind.
        """
        return np.asarray(self.costs[:, list(picked)].sum(axis=1))

    def solve(self, limits: Sequence[float]) -> Solution | None:
        """Return the choice with the least divergence within limits.

        Args:
            limits: The most of each kind of cost; infinity for no limit.

        Returns:
            The best that was found; None if no choice keeps within the limits.
        """
        pairs = [
            (one, other)
            for one in range(len(self.units))
            for other in range(one + 1, len(self.units))
            if self.units[one] != self.units[other] and self.gram[one, other] != 0
        ]
        exact = len(pairs) <= _MOST_PAIRS
        solved = self._integer_program(pairs if exact else [], np.asarray(limits, dtype=np.float64))
        if solved is None:
            return None
        picked, bound = solved
        improved = self.improved(picked, limits)
        return Solution(improved, self.value(improved), bound if exact else -np.inf)

    def improved(self, picked: Sequence[int], limits: Sequence[float]) -> tuple[int, ...]:
        """Move one unit or two as long as that lowers the divergence within the limits.

        Args:
            picked: Where to begin.
            limits: As for ``solve``.

        Returns:
            A choice that no such move improves.
        """
        now = list(picked)
        most = np.asarray(limits, dtype=np.float64)
        for _ in range(4 * self._count):
            moves = [column for column in range(len(self.units)) if column not in now]
            gain, spent = self._moved(now, moves)
            slack = most - self.cost(now)
            allowed = np.all(spent <= slack[:, None, None] + 1e-9, axis=0)
            gain = np.where(allowed, gain, np.inf)
            one, other = np.unravel_index(int(np.argmin(gain)), gain.shape)
            if not gain[one, other] < -1e-12:
                break
            for column in {moves[int(one)], moves[int(other)]}:
                now[self.units[column]] = column
        return tuple(now)

    def neighbours(self, picked: Sequence[int]) -> list[tuple[tuple[int, ...], float]]:
        """Return the choices that differ in one unit, or in two.

        Args:
            picked: The column that each unit takes.

        Returns:
            Each with its divergence.
        """
        moves = [column for column in range(len(self.units)) if column not in picked]
        gain, _ = self._moved(list(picked), moves)
        here, found = self.value(picked), []
        for one in range(len(moves)):
            for other in range(one, len(moves)):
                if one == other or self.units[moves[one]] != self.units[moves[other]]:
                    moved = list(picked)
                    for column in (moves[one], moves[other]):
                        moved[self.units[column]] = column
                    found.append((tuple(moved), here + float(gain[one, other])))
        return found

    def _moved(self, now: Sequence[int], moves: Sequence[int]) -> tuple[Array, Array]:
        """What every pair of moves adds to the divergence, and to each cost; on the diagonal, one move alone."""
        changes = np.zeros((len(moves), len(self.units)))
        for row, column in enumerate(moves):
            changes[row, column] = 1
            changes[row, now[self.units[column]]] = -1
        x = self._vector(now)
        curved = changes @ self.gram @ changes.T
        single = 2 * changes @ (self.gram @ x + self.cross) + np.diag(curved)
        gain = single[:, None] + single[None, :] + 2 * curved
        np.fill_diagonal(gain, single)
        cost = self.costs @ changes.T
        spent = cost[:, :, None] + cost[:, None, :]
        for row in spent:
            np.fill_diagonal(row, np.diag(row) / 2)
        same = self.units[list(moves)][:, None] == self.units[list(moves)][None, :]
        gain[same & ~np.eye(len(moves), dtype=bool)] = np.inf  # a unit takes one column
        return gain, spent

    def _integer_program(self, pairs: Sequence[tuple[int, int]], limits: Array) -> tuple[tuple[int, ...], float] | None:
        columns, total = len(self.units), len(self.units) + len(pairs)
        rows, low, high = [], [], []

        def constrain(entries: dict[int, float], least: float, most: float) -> None:
            row = np.zeros(total)
            row[list(entries)] = list(entries.values())
            rows.append(row)
            low.append(least)
            high.append(most)

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
        found = milp(
            objective / scale,
            integrality=np.concatenate([np.ones(columns), np.zeros(len(pairs))]),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(np.array(rows), np.array(low), np.array(high)),
            options={"time_limit": _SECONDS},
        )
        if found.x is None:
            return None
        picked = tuple(
            int(members[np.argmax(found.x[members])])
            for members in (np.flatnonzero(self.units == unit) for unit in range(self._count))
        )
        return picked, float(found.mip_dual_bound * scale + self.constant)

    def _vector(self, picked: Sequence[int]) -> Array:
        x = np.zeros(len(self.units))
        x[list(picked)] = 1
        return x
