"""Predictions of two models for the same samples: which changed, and the accuracy drop per class and slice."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.comparison.intervals import mcnemar
from keras_precision.core.errors import DataError
from keras_precision.core.result import Measurement
from keras_precision.scoring.scores import is_probability, predicted_classes

__all__ = ["ReferencePredictions"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ReferencePredictions:
    """The float model's predictions and the labels, with which another model's predictions are compared.

    Attributes:
        reference: Shape (n, ...).
        truth: Class numbers of shape (n,), or numbers of the reference's shape for a regression; None where not known.
        tolerance: Of a regression: how far off a prediction may be, in standard deviations of the channel in the reference.
        numbers: Whether predictions are numbers, and name no classes.
    """

    reference: Array
    truth: Array | None
    tolerance: float
    numbers: bool = False

    @classmethod
    def of(cls, reference: Array, truth: Any, tolerance: float) -> "ReferencePredictions":
        """Return the comparison for labels that are class numbers, one-hot, or numbers; None where not known."""
        if truth is None:
            return cls(reference, None, tolerance, not is_probability(reference))
        labels = np.asarray(truth)
        if labels.ndim == 0 or len(labels) != len(reference):
            raise DataError(
                f"Expected as many labels as samples. Received: labels of shape {labels.shape} for {len(reference)} samples."
            )
        wide = labels.shape == reference.shape and labels.ndim > 1 and labels.shape[-1] > 1
        one_hot = wide and bool(np.isin(labels, (0, 1)).all() and (labels.sum(axis=-1) == 1).all())
        if (wide and not one_hot) or not is_probability(reference):
            if labels.size != reference.size:
                raise DataError(
                    f"Expected labels of the predictions' shape {reference.shape}. Received: {labels.shape}."
                )
            return cls(reference, labels.reshape(reference.shape), tolerance, True)
        true_classes = labels.argmax(axis=-1) if one_hot else labels.squeeze()
        predicted = predicted_classes(reference)
        if true_classes.shape != predicted.shape:
            raise DataError(
                f"Expected a class per prediction {predicted.shape}. Received: labels of shape {labels.shape}."
            )
        return cls(reference, true_classes.astype(np.int64) if predicted.ndim == 1 else None, tolerance)

    def without_labels(self, numbers: npt.NDArray[np.int64]) -> "ReferencePredictions":
        """Return the same for some of the samples, without labels."""
        return replace(self, reference=self.reference[numbers], truth=None)

    @property
    def classifies(self) -> bool:
        """Whether a prediction is one class a sample."""
        return not self.numbers and predicted_classes(self.reference).ndim == 1

    def changed(self, other: Array) -> npt.NDArray[np.bool_]:
        """Return for which samples another model's prediction differs, shape (n,)."""
        if not self.numbers:
            differs = predicted_classes(self.reference) != predicted_classes(other)
        else:
            differs = np.abs(self.reference - other) > self.tolerance * self._spread()
        return np.asarray(differs.reshape(len(differs), -1).any(axis=1))

    def _spread(self) -> Array:
        """Return the standard deviation of each channel, as channels have units of their own; of a constant one, of all."""
        values = self.reference.astype(np.float64)
        whole = max(float(values.std()), 1e-12)
        channels = values.reshape(-1, values.shape[-1]) if values.ndim > 1 else values.reshape(-1, 1)
        spread = channels.std(axis=0)
        return np.where(spread > 1e-6 * np.abs(channels).max(axis=0), spread, whole)

    def correct(self, other: Array) -> npt.NDArray[np.bool_] | None:
        """Return which predictions are correct; None where the truth is not known, or is no class."""
        return predicted_classes(other) == self.truth if self.classifies and self.truth is not None else None

    def rows(self, other: Array, slices: Mapping[str, Array]) -> Iterator[Measurement]:
        """Yield the changes of all samples, every class, and every slice (a mask of shape (n,))."""
        yield from self.group("all", np.ones(len(other), bool), other)
        if self.classifies:
            classes = self.truth if self.truth is not None else predicted_classes(self.reference)
            for number in np.unique(classes):
                yield from self.group(f"class {number}", classes == number, other)
        for name, members in slices.items():
            yield from self.group(f"slice {name}", members, other)

    def group(self, subject: str, members: Array, other: Array) -> Iterator[Measurement]:
        """Yield the counts of one group of samples, and accuracy before and after where the truth is known."""
        changed = self.changed(other)[members]
        yield Measurement(subject, "samples", int(changed.size))
        yield Measurement(subject, "changed_samples", int(changed.sum()))
        before, after = self.correct(self.reference), self.correct(other)
        if before is not None and after is not None and changed.size:
            was, now = before[members], after[members]
            yield Measurement(subject, "lost_samples", int((was & ~now).sum()))
            yield Measurement(subject, "won_samples", int((~was & now).sum()))
            yield Measurement(subject, "float_accuracy", float(was.mean()))
            yield Measurement(subject, "accuracy", float(now.mean()))
            yield Measurement(subject, "p_value", mcnemar(was, now).p_value)
        elif self.truth is not None and self.numbers and changed.size:
            errors = [float(np.abs(values - self.truth)[members].mean()) for values in (self.reference, other)]
            yield Measurement(subject, "float_mean_absolute_error", errors[0])
            yield Measurement(subject, "mean_absolute_error", errors[1])

    def single_samples(self, other: Array) -> Iterator[Measurement]:
        """Yield a row for every sample whose prediction changed, as ``"3 -> 5 (true: 3)"``."""
        for number in np.flatnonzero(self.changed(other)):
            if self.classifies:
                pair = predicted_classes(self.reference)[number], predicted_classes(other)[number]
                text = f"{pair[0]} -> {pair[1]}"
            else:
                pair = self.reference[number].ravel()[0], other[number].ravel()[0]
                text = f"{pair[0]:.4g} -> {pair[1]:.4g}"
            truth = "" if self.truth is None else f" (true: {np.ravel(self.truth[number])[0]:.4g})"
            yield Measurement(f"sample {number}", "changed_answer", text + truth)
