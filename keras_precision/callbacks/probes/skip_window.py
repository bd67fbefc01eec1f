"""SkipWindow: a few steps of a fit, of which some were skipped, and of what kind."""

from collections.abc import Iterator
from dataclasses import dataclass

from keras_precision.core.result import Measurement

__all__ = ["Kinds", "SkipWindow"]


@dataclass(frozen=True)
class Kinds:
    """Skipped steps by the loss of their batch.

    Attributes:
        finite: With a finite loss.
        not_finite: With a loss that was NaN or infinite.
        unknown: With a loss that nobody told.
    """

    finite: int = 0
    not_finite: int = 0
    unknown: int = 0

    def __add__(self, other: "Kinds") -> "Kinds":
        """Return the sums."""
        return Kinds(self.finite + other.finite, self.not_finite + other.not_finite, self.unknown + other.unknown)


@dataclass
class SkipWindow:
    """Steps between two looks at the count of skipped steps.

    Attributes:
        first: The number of the first of them, from 1.
        steps: How many they are.
        nan: Those whose batch had a loss that is NaN.
        infinite: Those whose batch had a loss that is infinite.
        untold: Those whose batch had a loss that nobody told.

    Example:
        >>> SkipWindow(first=1, steps=64, nan=1).kinds(skipped=3)
        Kinds(finite=2, not_finite=1, unknown=0)
    """

    first: int
    steps: int = 0
    nan: int = 0
    infinite: int = 0
    untold: int = 0

    def kinds(self, skipped: int) -> Kinds:
        """Tell the kinds of skipped steps.

        A loss that is NaN has gradients that are NaN, so that its step is among the skipped. One that
        is infinite need not: it may have overflowed from finite numbers, behind finite gradients.

        Args:
            skipped: How many of the steps were skipped.

        Returns:
            The kinds; unknown where the counts do not decide them.
        """
        rest = skipped - self.nan  # those of which NaN says nothing
        if rest < 0:
            return Kinds(unknown=skipped)
        if rest and skipped == self.steps and not self.untold:
            return Kinds(rest - self.infinite, self.nan + self.infinite)
        if rest and (self.untold or self.infinite):
            return Kinds(not_finite=self.nan, unknown=rest)
        return Kinds(rest, self.nan)

    def rows(self, skipped: int) -> Iterator[Measurement]:
        """Yield where steps were skipped: the very steps where all of them were, else one row for the window.

        Args:
            skipped: How many of the steps were skipped.
        """
        last = self.first + self.steps - 1
        if skipped == self.steps:
            for step in range(self.first, last + 1):
                yield Measurement("step", "skipped_in_window", 1, step)
        elif skipped:
            yield Measurement(f"steps {self.first} to {last}", "skipped_in_window", skipped, last)
