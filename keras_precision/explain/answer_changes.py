"""Judged: answers of two models to the same samples, and who is hurt by the second."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.comparison.intervals import mcnemar
from keras_precision.core.errors import DataError
from keras_precision.core.result import Measurement
from keras_precision.scoring.scores import answers, is_probability

__all__ = ["Judge"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Judge:
    """What the float model answers, and what is true.

    Attributes:
        reference: The float model's answers, shape (n, ...).
        truth: Class numbers of shape (n,), or numbers of the answers' shape for a regression; None where not known.
        tolerance: Of a regression: by how much, in standard deviations of the reference, an answer may be off.
        numbers: Whether answers are numbers, and name no classes.
    """

    reference: Array
    truth: Array | None
    tolerance: float
    numbers: bool = False

    @classmethod
    def of(cls, reference: Array, truth: Any, tolerance: float) -> "Judge":
        """Return the judge for some answers.

        Args:
            reference: The float model's answers.
            truth: Labels: class numbers, one-hot, or numbers; None where not known.
            tolerance: As the field.

        Returns:
            The judge.

        Raises:
            DataError: There are not as many labels as samples.
        """
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
                raise DataError(f"Expected labels of the answers' shape {reference.shape}. Received: {labels.shape}.")
            return cls(reference, labels.reshape(reference.shape), tolerance, True)
        classes = labels.argmax(axis=-1) if one_hot else labels.squeeze()
        given = answers(reference)
        if classes.shape != given.shape:
            raise DataError(
                f"Expected a class for each answer {given.shape}. Received: labels of shape {labels.shape}."
            )
        return cls(reference, classes.astype(np.int64) if given.ndim == 1 else None, tolerance)

    @property
    def classifies(self) -> bool:
        """Whether answers are classes, of one a sample."""
        return not self.numbers and answers(self.reference).ndim == 1

    def changed(self, other: Array) -> npt.NDArray[np.bool_]:
        """Tell which samples another model answers differently.

        Args:
            other: Its answers.

        Returns:
            Shape (n,).
        """
        if not self.numbers:
            differs = answers(self.reference) != answers(other)
        else:
            differs = np.abs(self.reference - other) > self.tolerance * max(float(self.reference.std()), 1e-12)
        return np.asarray(differs.reshape(len(differs), -1).any(axis=1))

    def right(self, other: Array) -> npt.NDArray[np.bool_] | None:
        """Tell which samples a model answers rightly; None where the truth is not known, or is no class."""
        return answers(other) == self.truth if self.classifies and self.truth is not None else None

    def rows(self, other: Array, slices: Mapping[str, Array]) -> Iterator[Measurement]:
        """Yield who is hurt: all together, by class, by slice.

        Args:
            other: The answers of the model in lower precision.
            slices: Name to which samples belong to it, shape (n,).

        Yields:
            Rows of each group.
        """
        yield from self.group("all", np.ones(len(other), bool), other)
        if self.classifies:
            classes = self.truth if self.truth is not None else answers(self.reference)
            for number in np.unique(classes):
                yield from self.group(f"class {number}", classes == number, other)
        for name, members in slices.items():
            yield from self.group(f"slice {name}", members, other)

    def group(self, subject: str, members: Array, other: Array) -> Iterator[Measurement]:
        """Yield how one group fares.

        Args:
            subject: What to call it.
            members: Which samples belong to it.
            other: The answers of the model in lower precision.

        Yields:
            Counts; before and after where the truth is known.
        """
        changed = self.changed(other)[members]
        yield Measurement(subject, "samples", int(changed.size))
        yield Measurement(subject, "changed_samples", int(changed.sum()))
        before, after = self.right(self.reference), self.right(other)
        if before is not None and after is not None and changed.size:
            was, now = before[members], after[members]
            yield Measurement(subject, "lost_samples", int((was & ~now).sum()))
            yield Measurement(subject, "won_samples", int((~was & now).sum()))
            yield Measurement(subject, "float_accuracy", float(was.mean()))
            yield Measurement(subject, "accuracy", float(now.mean()))
            yield Measurement(subject, "p_value", mcnemar(was, now).p_value)
        elif self.truth is not None and self.numbers and changed.size:
            errors = [float(np.abs(each - self.truth)[members].mean()) for each in (self.reference, other)]
            yield Measurement(subject, "float_mean_absolute_error", errors[0])
            yield Measurement(subject, "mean_absolute_error", errors[1])

    def single_samples(self, other: Array) -> Iterator[Measurement]:
        """Yield each sample whose answer changed, as ``"3 -> 5 (true: 3)"``.

        Args:
            other: The answers of the model in lower precision.

        Yields:
            A row a sample.
        """
        for number in np.flatnonzero(self.changed(other)):
            if self.classifies:
                pair = answers(self.reference)[number], answers(other)[number]
                text = f"{pair[0]} -> {pair[1]}"
            else:
                pair = self.reference[number].ravel()[0], other[number].ravel()[0]
                text = f"{pair[0]:.4g} -> {pair[1]:.4g}"
            truth = "" if self.truth is None else f" (true: {np.ravel(self.truth[number])[0]:.4g})"
            yield Measurement(f"sample {number}", "changed_answer", text + truth)
