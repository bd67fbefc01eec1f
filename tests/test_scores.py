"""Scores: hand-computed values for each shape that models answer in."""

import re
from typing import Any

import numpy as np
import pytest

from keras_precision.core.errors import DataError
from keras_precision.scoring.scores import (
    SCORES,
    accuracy,
    agreement,
    mean_absolute_error,
    mean_squared_error,
    predicted_classes,
)

PROBABILITIES = [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3], [0.6, 0.3, 0.1]]  # classes 0, 2, 1, 0
TIMES = [[[0.9, 0.1], [0.2, 0.8]], [[0.4, 0.6], [0.7, 0.3]]]  # two samples of two steps: classes 0 1 and 1 0


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        (PROBABILITIES, [0, 2, 1, 0]),
        ([[-3.0, -1.0]], [1]),
        ([0.2, 0.5, 0.51], [0, 0, 1]),
        ([[0.2], [0.9]], [0, 1]),
        (TIMES, [[0, 1], [1, 0]]),
        ([[[0.9], [0.1]], [[0.4], [0.6]]], [[1, 0], [0, 1]]),
        (0.9, 1),
        ([[2, 2]], [0]),
        (np.asarray(PROBABILITIES, np.float16), [0, 2, 1, 0]),
    ],
)
def test_answers_are_classes(predictions: Any, expected: Any) -> None:
    """The last axis holds classes; a single probability exceeds one half or does not; ties go to the first."""
    found = predicted_classes(predictions)
    assert found.dtype == np.int64
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("truth", "predictions", "expected"),
    [
        ([0, 2, 1, 1], PROBABILITIES, 0.75),
        ([[0], [2], [1], [1]], PROBABILITIES, 0.75),
        ([0.0, 2.0, 1.0, 1.0], PROBABILITIES, 0.75),
        (np.asarray([0, 2, 1, 1], np.uint8), np.asarray(PROBABILITIES, np.float32), 0.75),
        ([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], PROBABILITIES, 0.5),
        ([0, 1, 1], [0.1, 0.2, 0.9], 2 / 3),
        ([0, 1, 1], [[0.1], [0.2], [0.9]], 2 / 3),
        ([[0], [1], [1]], [[0.1], [0.2], [0.9]], 2 / 3),
        ([False, True, True], [[0.1], [0.2], [0.9]], 2 / 3),
        ([[0, 1], [1, 1]], TIMES, 0.75),
        ([[[0], [1]], [[1], [1]]], TIMES, 0.75),
        ([[[1, 0], [1, 0]], [[1, 0], [1, 0]]], TIMES, 0.5),
        ([[1, 0], [0, 0]], [[[0.9], [0.1]], [[0.4], [0.6]]], 0.75),
    ],
)
def test_accuracy_counts_right_answers(truth: Any, predictions: Any, expected: float) -> None:
    """Labels may be class numbers, a column of them, or one-hot, for one answer a sample or several."""
    assert accuracy(truth, predictions) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("truth", "predictions", "message"),
    [
        ([0.5, 1.0], [[0.1, 0.9], [0.9, 0.1]], "dtype float64 with values that are no whole numbers. For a regression"),
        ([np.nan, 1.0], [[0.1, 0.9], [0.9, 0.1]], "dtype float64 with values that are no whole numbers."),
        (
            ["a", "b"],
            [[0.1, 0.9], [0.9, 0.1]],
            "Expected class numbers or one-hot rows as the truth. Received: dtype <U1",
        ),
        ([0, 1, 1], [[0.1, 0.9], [0.9, 0.1]], "Received: labels (3,), predictions (2,)."),
        ([[0, 1], [1, 0]], PROBABILITIES, "Received: labels (2, 2), predictions (4,)."),
        (0, [[0.1, 0.9]], "Received: labels (), predictions (1,)."),
    ],
)
def test_labels_that_do_not_fit_are_refused(truth: Any, predictions: Any, message: str) -> None:
    """Labels that are no classes, or too many or few, are refused with both shapes."""
    with pytest.raises(DataError, match=re.escape(message)):
        accuracy(truth, predictions)


@pytest.mark.parametrize(
    ("reference", "predictions", "expected"),
    [
        (PROBABILITIES, PROBABILITIES, 1.0),
        (PROBABILITIES, [[5, 0, 0], [0, 0, 5], [5, 0, 0], [0, 5, 0]], 0.5),
        ([0.1, 0.9, 0.8], [0.4, 0.6, 0.2], 2 / 3),
        ([[0.1], [0.9]], [[0.6], [0.4]], 0.0),
        (TIMES, [[[1, 0], [1, 0]], [[0, 1], [1, 0]]], 0.75),
    ],
)
def test_agreement_compares_answers(reference: Any, predictions: Any, expected: float) -> None:
    """Two models agree where they name the same class, however sure they are."""
    assert agreement(reference, predictions) == pytest.approx(expected, rel=1e-15)
    assert agreement(predictions, reference) == agreement(reference, predictions)


@pytest.mark.parametrize(
    ("truth", "predictions", "absolute", "squared"),
    [
        ([1.0, 2.0, 4.0], [1.0, 4.0, 3.0], 1.0, 5 / 3),
        ([1.0, 2.0, 4.0], [[1.0], [4.0], [3.0]], 1.0, 5 / 3),
        ([[1, 2], [3, 4]], [[1, 2], [3, 8]], 1.0, 4.0),
        (np.asarray([0, 200], np.uint8), np.asarray([200, 0], np.uint8), 200.0, 40000.0),
        (2.0, 5.0, 3.0, 9.0),
    ],
)
def test_errors_are_means_over_all_values(truth: Any, predictions: Any, absolute: float, squared: float) -> None:
    """Errors are taken in float64, value by value; a column stands for a vector."""
    assert mean_absolute_error(truth, predictions) == pytest.approx(absolute, rel=1e-15)
    assert mean_squared_error(truth, predictions) == pytest.approx(squared, rel=1e-15)


@pytest.mark.parametrize("score", [agreement, mean_absolute_error, mean_squared_error])
def test_answers_of_another_shape_are_refused(score: Any) -> None:
    """No score stretches one side to fit the other."""
    with pytest.raises(DataError, match=r"of the same shape\. Received: labels \(3, 2\), predictions \(1, 2\)"):
        score(np.zeros((3, 2)), np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("accuracy", accuracy),
        ("acc", accuracy),
        ("mean_absolute_error", mean_absolute_error),
        ("mae", mean_absolute_error),
        ("mean_squared_error", mean_squared_error),
        ("mse", mean_squared_error),
    ],
)
def test_scores_have_the_names_of_keras(name: str, score: Any) -> None:
    """Each score is found by its long and by its short name."""
    assert SCORES[name] is score
    assert SCORES[name].__name__ in SCORES


@pytest.mark.parametrize("score", [accuracy, agreement, mean_absolute_error])
def test_nothing_to_score(score):
    """Without a sample there is no score."""
    with pytest.raises(DataError, match="Expected at least one sample to score"):
        score(np.zeros(0), np.zeros(0))
