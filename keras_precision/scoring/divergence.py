"""Divergence of predictions from those of the float model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.channel_errors import channel_spreads

__all__ = ["FLOOR", "OutputKind", "Outputs", "mean_divergence", "output_kind"]

Array = npt.NDArray[Any]
Outputs = list[Array]
"""One array of shape (n, ...) per output."""

FLOOR = 1 / 512
"""Half a step of an int8 probability: a smaller one is rounded to 0, and its logarithm is not known."""


@dataclass(frozen=True)
class OutputKind:
    """The kind of an output, which decides how the difference of two predictions is measured.

    Attributes:
        name: ``"probabilities"`` (rows that sum to 1), ``"probability"`` (numbers from 0 to 1) or ``"values"``.
        scale: Of values: their standard deviation in the reference.
        spreads: The same of each channel, where they are told apart.
    """

    name: str
    scale: float = 1.0
    spreads: Array | None = None

    def additive(self, outputs: Array) -> Array:
        """Return outputs of shape (n, ...) in the space in which errors of layers add up.

        These are logarithms of probabilities, log-odds of a probability, or the values themselves.
        """
        values = outputs.astype(np.float64)
        if self.name == "probabilities":
            return np.asarray(np.log(np.maximum(values, FLOOR)))
        if self.name == "probability":
            inside = np.clip(values, FLOOR, 1 - FLOOR)
            return np.asarray(np.log(inside) - np.log1p(-inside))
        return values

    def answers(self, additive: Array) -> Array:
        """Return the outputs, of the same shape, that values of ``additive`` stand for."""
        if self.name == "probabilities":
            odds = np.exp(additive - additive.max(axis=-1, keepdims=True))
            return np.asarray(odds / odds.sum(axis=-1, keepdims=True))
        if self.name == "probability":
            return np.asarray(1 / (1 + np.exp(-additive)))
        return additive

    def divergence(self, reference: Array, outputs: Array) -> float:
        """Return the mean divergence of outputs from the float model's, both of shape (n, ...).

        It is the Kullback-Leibler divergence in nats, with probabilities clipped at 1/512 on both sides; of values, the mean
        squared difference, in variances of the reference, channel by channel. A channel whose values are lost counts as 1,
        however little it varies, until its error is as large as the spread of all channels.
        """
        p, q = reference.astype(np.float64), outputs.astype(np.float64)
        if self.name == "values":
            return float(self._noise(np.square(q - p)).mean())
        if self.name == "probability":
            p, q = np.stack([1 - p, p], axis=-1), np.stack([1 - q, q], axis=-1)
        p, q = np.maximum(p, FLOOR), np.maximum(q, FLOOR)
        p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)
        return float(max(0.0, (p * (np.log(p) - np.log(q))).sum(axis=-1).mean()))

    def _noise(self, squares: Array) -> Array:
        """Return squared differences in variances."""
        if self.spreads is None:
            return np.asarray(squares / self.scale**2)
        power = squares.reshape(-1, len(self.spreads)).mean(axis=0)
        return np.asarray(np.minimum(power / self.spreads**2, np.maximum(power / self.scale**2, 1.0)))

    def errors(self, reference: Array, shift: Array) -> Array:
        """Return a shift of ``additive`` values as a vector whose squared length is, to second order, its divergence.

        For probabilities p and a shift d of their logarithms, KL = 1/2 (E_p[d^2] - E_p[d]^2) + O(d^3).
        """
        count = max(1, reference.size // (reference.shape[-1] if self.name == "probabilities" else 1))
        if self.name == "values":
            scale = self.scale if self.spreads is None else self.spreads
            return np.ravel(shift / (scale * np.sqrt(count)))
        p = reference.astype(np.float64)
        if self.name == "probability":
            return np.ravel(shift * np.sqrt(np.clip(p * (1 - p), FLOOR, None) / (2 * count)))
        mean = (p * shift).sum(axis=-1, keepdims=True)
        return np.ravel(np.sqrt(np.maximum(p, FLOOR) / (2 * count)) * (shift - mean))


def output_kind(reference: Array) -> OutputKind:
    """Return the kind of an output of shape (n, ...).

    Example:
        >>> output_kind(np.array([[0.2, 0.8], [0.5, 0.5]])).name
        'probabilities'
    """
    values = reference.astype(np.float64)
    bounded = bool(values.size) and values.min() >= 0 and values.max() <= 1
    if bounded and values.ndim > 1 and values.shape[-1] > 1 and np.allclose(values.sum(axis=-1), 1, atol=0.02):
        return OutputKind("probabilities")
    if bounded and (values.ndim == 1 or values.shape[-1] == 1):
        return OutputKind("probability")
    spread = float(values.std()) or 1.0
    spreads = channel_spreads(values)
    return OutputKind("values", spread, None if spreads is None else np.where(spreads > 0, spreads, spread))


def mean_divergence(kinds: Sequence[OutputKind], reference: Outputs, answers: Outputs) -> float:
    """Return the mean of ``Kind.divergence`` over the outputs, one array per output."""
    rows = zip(kinds, reference, answers, strict=True)
    return float(np.mean([kind.divergence(expected, actual) for kind, expected, actual in rows]))
