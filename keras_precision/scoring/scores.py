"""Scores of predictions, with NumPy only: the same on a workstation and on a device without Keras."""

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
    "is_probability",
    "mean_absolute_error",
    "mean_squared_error",
    "predicted_classes",
    "snr_db",
]

Array = npt.NDArray[np.generic]


def predicted_classes(predictions: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the predicted class: the most probable one, or, of a single probability, whether it exceeds 0.5.

    ``predictions`` are probabilities or logits of shape (n, ..., classes), or the probability of class 1 of shape (n,) or
    (n, 1); the result has shape (n, ...).
    """
    values = np.asarray(predictions)
    if values.ndim > 1 and values.shape[-1] > 1:
        return np.asarray(values.argmax(axis=-1), dtype=np.int64)
    single = values if values.ndim <= 1 else values[..., 0]
    return np.asarray(single > 0.5, dtype=np.int64)


def accuracy(truth: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the share of samples whose most probable class is the true one.

    ``truth`` has class numbers of shape (n, ...) or (n, ..., 1), or is one-hot, of the shape of ``predictions``.

    Example:
        >>> accuracy([0, 1], [[0.9, 0.1], [0.8, 0.2]])
        0.5
    """
    labels, outputs = np.asarray(truth), np.asarray(predictions)
    if labels.dtype.kind not in "biuf" or (labels.dtype.kind == "f" and not np.array_equal(labels, np.round(labels))):
        raise DataError(
            f"Expected class numbers or one-hot rows as the truth. Received: dtype {labels.dtype} with values that are no whole numbers. "
            "For a regression, ask for 'mean_absolute_error'."
        )
    predicted = predicted_classes(outputs)
    if labels.shape == outputs.shape and labels.ndim > 1 and labels.shape[-1] > 1:
        labels = labels.argmax(axis=-1)
    elif labels.ndim == predicted.ndim + 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    _same_shape(labels, predicted)
    return _mean(labels == predicted)


def agreement(reference: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the share of samples for which two models predict the same class.

    Example:
        >>> agreement([[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.7, 0.3]])
        0.5
    """
    _same_shape(np.asarray(reference), np.asarray(predictions))
    return _mean(predicted_classes(reference) == predicted_classes(predictions))


def is_probability(predictions: npt.ArrayLike) -> bool:
    """Return whether predictions name classes: several numbers a sample, or single ones between 0 and 1.

    Example:
        >>> is_probability([[0.2], [0.7]]), is_probability([[21.0], [-3.0]])
        (True, False)
    """
    values = np.asarray(predictions)
    if values.ndim > 1 and values.shape[-1] > 1:
        return True
    return bool(np.all((values >= 0) & (values <= 1)))


def snr_db(reference: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the signal-to-noise ratio, ``10 log10(sum r^2 / sum (r - p)^2)``, in decibels; infinity where both are equal.

    Example:
        >>> round(snr_db([1.0, 1.0], [1.1, 0.9]), 6)
        20.0
    """
    expected, actual = np.asarray(reference, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    _same_shape(expected, actual)
    signal, noise = float(np.square(expected).sum()), float(np.square(actual - expected).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def mean_absolute_error(truth: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the mean of ``|prediction - truth|``, both of one shape; (n,) stands for (n, 1)."""
    return _mean(np.abs(_errors(truth, predictions)))


def mean_squared_error(truth: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the mean of ``(prediction - truth)^2``, both of one shape; (n,) stands for (n, 1)."""
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
    labels, outputs = np.asarray(truth, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    if outputs.ndim == labels.ndim + 1 and outputs.shape[-1] == 1:
        outputs = outputs[..., 0]
    _same_shape(labels, outputs)
    return outputs - labels


def _mean(values: npt.NDArray[Any]) -> float:
    if values.size == 0:
        raise DataError("Expected at least one sample to score. Received: none.")
    return float(np.mean(values))


def _same_shape(truth: Array, predictions: Array) -> None:
    if truth.shape != predictions.shape:
        raise DataError(
            f"Expected as many predictions as labels, of the same shape. Received: labels {truth.shape}, predictions {predictions.shape}."
        )
