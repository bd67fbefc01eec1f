"""ErrorModel: predictions of a plan's outputs, from the outputs of other plans.

Quantizing one layer shifts the inputs of the final softmax. The shifts of several layers add up, to first order, sample
by sample; their divergences do not, since shifts cancel or accumulate. So shifts are added, and the divergence is
computed from their sum.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.scoring.divergence import Outputs, mean_divergence, output_kind

__all__ = ["ErrorModel"]

Array = npt.NDArray[Any]


class ErrorModel:
    """Predicts the outputs of plans from those of the plans that were run.

    ``reference`` are the float model's outputs, ``start`` is the assignment from which one layer changes at a time.
    """

    def __init__(self, reference: Outputs, start: Sequence[str]) -> None:
        self.kinds = [output_kind(outputs) for outputs in reference]
        self.reference = reference
        self._start = tuple(start)
        self._additive: dict[tuple[str, ...], list[Array]] = {}
        self._shifts: dict[tuple[int, str], list[Array]] = {}
        self._origin = self._to_additive(reference)

    def divergence(self, predictions: Outputs) -> float:
        """Return the divergence from the float model, as the mean over outputs."""
        return mean_divergence(self.kinds, self.reference, predictions)

    def learn(self, assignment: Sequence[str], predictions: Outputs) -> None:
        """Add the outputs of a plan, one array per output."""
        key = tuple(assignment)
        self._additive[key] = self._to_additive(predictions)
        base = self._additive.get(self._start)
        if base is None:
            return
        for other, values in self._additive.items() if key == self._start else [(key, self._additive[key])]:
            changed = [number for number, pair in enumerate(zip(other, self._start, strict=True)) if pair[0] != pair[1]]
            if len(changed) == 1:
                shift = [new - old for new, old in zip(values, base, strict=True)]
                self._shifts[changed[0], other[changed[0]]] = shift

    def knows(self, number: int, choice: str) -> bool:
        """Whether the shift of a unit in a precision was measured; that of the start is 0."""
        return choice == self._start[number] or (number, choice) in self._shifts

    def gram(self, choices: Sequence[tuple[int, str]]) -> tuple[Array, Array, float]:
        """Return the second-order terms of the divergence for units and their precisions.

        These are the inner products G of their errors, of shape (k, k), those with the error of the start g, (k,), and
        that of the start with itself g0: the divergence of plan x is ``x G x + 2 g x + g0``.
        """
        shifts = zip(self._additive[self._start], self._origin, strict=True)
        base = self._vector([new - old for new, old in shifts])
        rows = [
            np.zeros_like(base) if choice == self._start[number] else self._vector(self._shifts[number, choice])
            for number, choice in choices
        ]
        table = np.array(rows)
        return table @ table.T, table @ base, float(base @ base)

    def predict(self, assignment: Sequence[str]) -> Outputs:
        """Return the outputs of a plan of known choices: those of the nearest plan, and the shifts of what differs."""
        target = tuple(assignment)
        anchor = min(self._additive, key=lambda plan: self._distance(plan, target))
        values = [np.array(array) for array in self._additive[anchor]]
        for number, (old, new) in enumerate(zip(anchor, target, strict=True)):
            if old != new:
                for sign, choice in ((-1, old), (1, new)):
                    if choice != self._start[number]:
                        for total, shift in zip(values, self._shifts[number, choice], strict=True):
                            total += sign * shift
        return [kind.answers(array) for kind, array in zip(self.kinds, values, strict=True)]

    def _to_additive(self, predictions: Outputs) -> list[Array]:
        return [kind.additive(outputs) for kind, outputs in zip(self.kinds, predictions, strict=True)]

    def _distance(self, one: Sequence[str], other: Sequence[str]) -> tuple[float, int]:
        """Return how far the units that differ shift the outputs, and their number."""
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
        parts = [kind.errors(reference, array) for kind, reference, array in rows]
        return np.asarray(np.concatenate(parts) / np.sqrt(len(parts)))
