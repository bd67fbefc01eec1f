"""Scores of predictions, with NumPy alone: the same on a workstation and on a device without Keras."""

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import DataError

__all__ = [
    "SCORES",
    "accuracy",
    "agreement",
    "answers",
    "is_probability",
    "mean_absolute_error",
    "mean_squared_error",
    "snr_db",
]

Array = npt.NDArray[np.generic]


def answers(predictions: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the class that each prediction names.

    Args:
        predictions: Shape (n, ..., classes): probabilities or logits; or (n,) and (n, 1):
            the probability of class 1.

    Returns:
        Shape (n, ...): the most probable class; of a single probability, whether it exceeds 0.5.
    """
    values = np.asarray(predictions)
    if values.ndim > 1 and values.shape[-1] > 1:
        return np.asarray(values.argmax(axis=-1), dtype=np.int64)
    single = values if values.ndim <= 1 else values[..., 0]
    return np.asarray(single > 0.5, dtype=np.int64)


def accuracy(truth: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the share of samples whose most probable class is the true one.

    Args:
        truth: Class numbers, shape (n, ...) or (n, ..., 1), or one-hot, the shape of ``predictions``.
        predictions: As for ``answers``.

    Returns:
        Between 0 and 1.

    Raises:
        DataError: The shapes do not fit, or ``truth`` holds no classes.

    Example:
        >>> accuracy([0, 1], [[0.9, 0.1], [0.8, 0.2]])
        0.5
    """
    labels, given = np.asarray(truth), np.asarray(predictions)
    if labels.dtype.kind not in "biuf" or (labels.dtype.kind == "f" and not np.array_equal(labels, np.round(labels))):
        raise DataError(
            f"Expected class numbers or one-hot rows as the truth. Received: dtype {labels.dtype} with values that are no whole numbers. "
            "For a regression, ask for 'mean_absolute_error'."
        )
    predicted = answers(given)
    if labels.shape == given.shape and labels.ndim > 1 and labels.shape[-1] > 1:
        labels = labels.argmax(axis=-1)
    elif labels.ndim == predicted.ndim + 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    _same_shape(labels, predicted)
    return _mean(labels == predicted)


def agreement(reference: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the share of samples for which two models name the same class.

    Args:
        reference: Predictions of the reference, as for ``answers``.
        predictions: Predictions of the other, of the same shape.

    Returns:
        Between 0 and 1.

    Raises:
        DataError: The shapes differ.

    Example:
        >>> agreement([[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.7, 0.3]])
        0.5
    """
    _same_shape(np.asarray(reference), np.asarray(predictions))
    return _mean(answers(reference) == answers(predictions))


def is_probability(predictions: npt.ArrayLike) -> bool:
    """Tell whether predictions name classes: several numbers a sample, or single ones between 0 and 1.

    Args:
        predictions: As for ``answers``.

    Returns:
        False for a regression of one number whose values lie elsewhere.

    Example:
        >>> is_probability([[0.2], [0.7]]), is_probability([[21.0], [-3.0]])
        (True, False)
    """
    values = np.asarray(predictions)
    if values.ndim > 1 and values.shape[-1] > 1:
        return True
    return bool(np.all((values >= 0) & (values <= 1)))


def snr_db(reference: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the signal-to-noise ratio, ``10 log10(sum r^2 / sum (r - p)^2)``, in decibels.

    Args:
        reference: Predictions of the reference.
        predictions: Predictions of the other, of the same shape.

    Returns:
        Infinity where both are equal; each 20 dB are a factor of ten in the error.

    Raises:
        DataError: The shapes differ.

    Example:
        >>> round(snr_db([1.0, 1.0], [1.1, 0.9]), 6)
        20.0
    """
    wanted, given = np.asarray(reference, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    _same_shape(wanted, given)
    signal, noise = float(np.square(wanted).sum()), float(np.square(given - wanted).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def mean_absolute_error(truth: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the mean of ``|prediction - truth|``.

    Args:
        truth: Any shape; (n,) stands for (n, 1).
        predictions: The same shape.

    Returns:
        At least 0.

    Raises:
        DataError: The shapes differ.
    """
    return _mean(np.abs(_errors(truth, predictions)))


def mean_squared_error(truth: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the mean of ``(prediction - truth)^2``.

    Args:
        truth: Any shape; (n,) stands for (n, 1).
        predictions: The same shape.

    Returns:
        At least 0.

    Raises:
        DataError: The shapes differ.
    """
    return _mean(np.square(_errors(truth, predictions)))


SCORES: MappingProxyType[str, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = MappingProxyType(
    {
        "accuracy": accuracy,
        "acc": accuracy,
        "mean_absolute_error": mean_absolute_error,
        "mae": mean_absolute_error,
        "mean_squared_error": mean_squared_error,
        "mse": mean_squared_error,
    }
)
"""Name, and Keras's short name, to score. ``SCORES[name].__name__`` is the name that results carry."""


def _errors(truth: npt.ArrayLike, predictions: npt.ArrayLike) -> npt.NDArray[np.float64]:
    wanted, given = np.asarray(truth, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    if given.ndim == wanted.ndim + 1 and given.shape[-1] == 1:
        given = given[..., 0]
    _same_shape(wanted, given)
    return given - wanted


def _mean(values: npt.NDArray[Any]) -> float:
    if values.size == 0:
        raise DataError("Expected at least one sample to score. Received: none.")
    return float(np.mean(values))


def _same_shape(truth: Array, predictions: Array) -> None:
    if truth.shape != predictions.shape:
        raise DataError(
            f"Expected as many answers as labels, of the same shape. Received: labels {truth.shape}, answers {predictions.shape}."
        )
