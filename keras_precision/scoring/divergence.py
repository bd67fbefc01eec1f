"""Divergence: how far the answers of a file are from those of the float model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FLOOR", "Answers", "Kind", "kind_of", "mean_divergence"]

Array = npt.NDArray[Any]
Answers = list[Array]
"""One array of shape (n, ...) per output."""

FLOOR = 1 / 512
"""Half a step of an int8 probability: a smaller one was rounded to 0, and its logarithm is not known."""


@dataclass(frozen=True)
class Kind:
    """What an output holds, and so how far two answers are apart.

    Attributes:
        name: ``"probabilities"`` (rows that sum to 1), ``"probability"`` (numbers from 0 to 1) or ``"values"``.
        scale: Of values: their standard deviation in the reference.
    """

    name: str
    scale: float = 1.0

    def additive(self, answers: Array) -> Array:
        """Return answers in the space in which errors of layers add up.

        Args:
            answers: Shape (n, ...).

        Returns:
            Logarithms of probabilities, log-odds of a probability, or the values themselves.
        """
        values = answers.astype(np.float64)
        if self.name == "probabilities":
            return np.asarray(np.log(np.maximum(values, FLOOR)))
        if self.name == "probability":
            inside = np.clip(values, FLOOR, 1 - FLOOR)
            return np.asarray(np.log(inside) - np.log1p(-inside))
        return values

    def answers(self, additive: Array) -> Array:
        """Return the answers that values of ``additive`` stand for.

        Args:
            additive: Shape (n, ...).

        Returns:
            The same shape.
        """
        if self.name == "probabilities":
            odds = np.exp(additive - additive.max(axis=-1, keepdims=True))
            return np.asarray(odds / odds.sum(axis=-1, keepdims=True))
        if self.name == "probability":
            return np.asarray(1 / (1 + np.exp(-additive)))
        return additive

    def divergence(self, reference: Array, answers: Array) -> float:
        """Return how far answers are from those of the float model.

        Args:
            reference: The float model's answers, shape (n, ...).
            answers: The same shape.

        Returns:
            Mean over samples of the Kullback-Leibler divergence in nats, probabilities below 1/512 taken as
            that on both sides; of values, the mean squared difference, in variances of the reference.
        """
        wanted, got = reference.astype(np.float64), answers.astype(np.float64)
        if self.name == "values":
            return float(np.mean(np.square((got - wanted) / self.scale)))
        if self.name == "probability":
            wanted, got = np.stack([1 - wanted, wanted], axis=-1), np.stack([1 - got, got], axis=-1)
        wanted, got = np.maximum(wanted, FLOOR), np.maximum(got, FLOOR)
        wanted, got = wanted / wanted.sum(axis=-1, keepdims=True), got / got.sum(axis=-1, keepdims=True)
        return float(max(0.0, (wanted * (np.log(wanted) - np.log(got))).sum(axis=-1).mean()))

    def errors(self, reference: Array, shift: Array) -> Array:
        """Return a shift as a vector whose squared length is, to second order, the divergence that it makes.

        For probabilities p and a shift d of their logarithms, KL = 1/2 (E_p[d^2] - E_p[d]^2) + O(d^3).

        Args:
            reference: The float model's answers, shape (n, ...).
            shift: Difference of two values of ``additive``, the same shape.

        Returns:
            A vector.
        """
        count = max(1, reference.size // (reference.shape[-1] if self.name == "probabilities" else 1))
        if self.name == "values":
            return np.asarray(np.ravel(shift) / (self.scale * np.sqrt(count)))
        p = reference.astype(np.float64)
        if self.name == "probability":
            return np.ravel(shift * np.sqrt(np.clip(p * (1 - p), FLOOR, None) / (2 * count)))
        mean = (p * shift).sum(axis=-1, keepdims=True)
        return np.ravel(np.sqrt(np.maximum(p, FLOOR) / (2 * count)) * (shift - mean))


def kind_of(reference: Array) -> Kind:
    """Return what an output holds.

    Args:
        reference: The float model's answers, shape (n, ...).

    Returns:
        The kind.

    Example:
        >>> kind_of(np.array([[0.2, 0.8], [0.5, 0.5]])).name
        'probabilities'
    """
    values = reference.astype(np.float64)
    bounded = bool(values.size) and values.min() >= 0 and values.max() <= 1
    if bounded and values.ndim > 1 and values.shape[-1] > 1 and np.allclose(values.sum(axis=-1), 1, atol=0.02):
        return Kind("probabilities")
    if bounded and (values.ndim == 1 or values.shape[-1] == 1):
        return Kind("probability")
    spread = float(values.std())
    return Kind("values", spread if spread > 0 else 1.0)


def mean_divergence(kinds: Sequence[Kind], reference: Answers, answers: Answers) -> float:
    """Return how far answers are from a reference.

    Args:
        kinds: What each output holds.
        reference: One array per output.
        answers: Likewise.

    Returns:
        The mean over outputs of ``Kind.divergence``.
    """
    rows = zip(kinds, reference, answers, strict=True)
    return float(np.mean([kind.divergence(wanted, got) for kind, wanted, got in rows]))
