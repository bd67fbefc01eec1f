"""ErrorModel: what a plan will answer, from the answers to other plans.

Rounding one layer shifts what comes out of the last layer before softmax. Where several layers are
rounded, these shifts add up, to first order, sample by sample; what does not add up is the divergence,
since shifts cancel or pile up. So shifts are added, and the divergence is taken of their sum.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.scoring.divergence import Answers, kind_of, mean_divergence

__all__ = ["ErrorModel"]

Array = npt.NDArray[Any]


class ErrorModel:
    """Predicts the answers of plans from those of the plans that were run.

    Args:
        reference: The float model's answers, one array per output.
        start: The assignment from which layers were changed alone.
    """

    def __init__(self, reference: Answers, start: Sequence[str]) -> None:
        self.kinds = [kind_of(each) for each in reference]
        self.reference = reference
        self._start = tuple(start)
        self._seen: dict[tuple[str, ...], list[Array]] = {}
        self._shifts: dict[tuple[int, str], list[Array]] = {}
        self._origin = [kind.additive(each) for kind, each in zip(self.kinds, reference, strict=True)]

    def divergence(self, answers: Answers) -> float:
        """Return how far answers are from the float model's.

        Args:
            answers: One array per output.

        Returns:
            The mean over outputs of ``Kind.divergence``.
        """
        return mean_divergence(self.kinds, self.reference, answers)

    def learn(self, assignment: Sequence[str], answers: Answers) -> None:
        """Take in what a plan answered.

        Args:
            assignment: A precision for each unit.
            answers: One array per output.
        """
        key = tuple(assignment)
        self._seen[key] = [kind.additive(each) for kind, each in zip(self.kinds, answers, strict=True)]
        base = self._seen.get(self._start)
        if base is None:
            return
        for other, values in self._seen.items() if key == self._start else [(key, self._seen[key])]:
            changed = [number for number, pair in enumerate(zip(other, self._start, strict=True)) if pair[0] != pair[1]]
            if len(changed) == 1:
                shift = [new - old for new, old in zip(values, base, strict=True)]
                self._shifts[changed[0], other[changed[0]]] = shift

    def knows(self, number: int, choice: str) -> bool:
        """Tell whether a unit's shift under a precision was measured.

        Args:
            number: The unit.
            choice: The precision.

        Returns:
            Whether it was; that of the start is 0.
        """
        return choice == self._start[number] or (number, choice) in self._shifts

    def gram(self, choices: Sequence[tuple[int, str]]) -> tuple[Array, Array, float]:
        """Return what the divergence of any plan is computed from, to second order.

        Args:
            choices: Units and their precisions.

        Returns:
            Inner products of their errors, of shape (k, k); with the error of the start, (k,); and
            that of the start with itself: the divergence of plan x is ``x G x + 2 g x + g0``.
        """
        base = self._vector([new - old for new, old in zip(self._seen[self._start], self._origin, strict=True)])
        rows = [
            np.zeros_like(base) if choice == self._start[number] else self._vector(self._shifts[number, choice])
            for number, choice in choices
        ]
        table = np.array(rows)
        return table @ table.T, table @ base, float(base @ base)

    def predict(self, assignment: Sequence[str]) -> Answers:
        """Return what a plan will answer: as the nearest plan that was run, and the shifts of what differs.

        Args:
            assignment: A precision for each unit, each of which is known.

        Returns:
            One array per output.
        """
        wanted = tuple(assignment)
        anchor = min(self._seen, key=lambda seen: self._distance(seen, wanted))
        values = [np.array(each) for each in self._seen[anchor]]
        for number, (old, new) in enumerate(zip(anchor, wanted, strict=True)):
            if old != new:
                for sign, choice in ((-1, old), (1, new)):
                    if choice != self._start[number]:
                        for total, shift in zip(values, self._shifts[number, choice], strict=True):
                            total += sign * shift
        return [kind.answers(each) for kind, each in zip(self.kinds, values, strict=True)]

    def _distance(self, one: Sequence[str], other: Sequence[str]) -> tuple[float, int]:
        """How far the units that differ move the answers, and how many they are."""
        differing = [number for number, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]]
        moved = sum(self._weight(number, plan[number]) for number in differing for plan in (one, other))
        return moved, len(differing)

    def _weight(self, number: int, choice: str) -> float:
        if choice == self._start[number]:
            return 0.0
        shift = self._shifts.get((number, choice))
        return float("inf") if shift is None else float(np.square(self._vector(shift)).sum())

    def _vector(self, shift: Sequence[Array]) -> Array:
        rows = zip(self.kinds, self.reference, shift, strict=True)
        parts = [kind.errors(wanted, each) for kind, wanted, each in rows]
        return np.asarray(np.concatenate(parts) / np.sqrt(len(parts)))
