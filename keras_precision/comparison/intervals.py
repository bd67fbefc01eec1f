"""What blocks of measurements can show: intervals of ratios and differences, non-inferiority, McNemar's test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from keras_precision.core.errors import DataError, InputError

__all__ = [
    "Interval",
    "McNemar",
    "difference_interval",
    "folded",
    "mcnemar",
    "mean_interval",
    "ratio_interval",
    "separate_ratio_interval",
]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate, and the interval that covers the truth with a stated confidence.

    Attributes:
        estimate: The most likely value.
        low: The lower end.
        high: The upper end.
        confidence: How often such intervals hold the truth: 0.95 is 95 of 100.
        count: How many independent figures it rests on.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    count: int

    def lies_above(self, bound: float) -> bool:
        """Tell whether the whole interval lies above a bound.

        Args:
            bound: The bound.

        Returns:
            True if it does; of a non-inferiority margin ``m``, ``lies_above(-m)`` is the test of
            Walker and Nowacki, "Understanding Equivalence and Noninferiority Testing", J Gen Intern
            Med 26 (2011): a loss as large as ``m`` can be ruled out.
        """
        return self.low > bound

    def lies_below(self, bound: float) -> bool:
        """Tell whether the whole interval lies below a bound.

        Args:
            bound: The bound.

        Returns:
            True if it does.
        """
        return self.high < bound


@dataclass(frozen=True)
class McNemar:
    """McNemar's test: do two classifiers err equally often on the same samples?

    Attributes:
        only_baseline: Samples that only the baseline got right.
        only_other: Samples that only the other got right.
        p_value: How often a difference as large as this one, or larger, is seen where there is none.
    """

    only_baseline: int
    only_other: int
    p_value: float


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the interval of the mean, by Student's t distribution.

    ``mean ± t(n - 1) * s / sqrt(n)``. It is studentized: with few figures, their own spread is
    uncertain, and the interval is wider for it. The percentile bootstrap knows nothing of that: with
    two or three figures it leaves the truth out in a quarter to a half of the cases.

    Args:
        values: At least two independent figures.
        confidence: Between 0 and 1.

    Returns:
        The interval.

    Raises:
        DataError: There are fewer than two figures, or one is not finite.
        InputError: ``confidence`` is not between 0 and 1.

    Example:
        >>> interval = mean_interval([1.0, 2.0, 3.0])
        >>> round(interval.low, 3), interval.estimate, round(interval.high, 3)
        (-0.484, 2.0, 4.484)
    """
    if not 0 < confidence < 1:
        raise InputError(f"Expected a confidence between 0 and 1. Received: {confidence!r}. 0.95 is usual.")
    array = _figures(values, "figures")
    if array.size < 2:
        raise DataError(
            f"Expected at least two figures, as one says nothing of its spread. Received: {array.size}. Measure again."
        )
    mean = float(array.mean())
    half = float(stats.t.ppf((1 + confidence) / 2, array.size - 1) * array.std(ddof=1) / math.sqrt(array.size))
    return Interval(mean, mean - half, mean + half, confidence, array.size)


def ratio_interval(baseline: Sequence[float], other: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the interval of the ratio ``other / baseline`` of two runs that were measured in turns.

    It is the t interval of the mean of ``log(other[i] / baseline[i])``, taken back from the logarithm.
    Block ``i`` of both runs was measured at nearly the same time: what slows the machine meanwhile slows
    both, and goes out of the ratio. Logarithms make a ratio and its inverse alike. That the blocks, and
    not the steps in them, are the independent figures is Kalibera and Jones, "Rigorous Benchmarking in
    Reasonable Time", ISMM 2013.

    Args:
        baseline: One time a block, of the baseline: at least two.
        other: The times of the other run in the same blocks.
        confidence: Between 0 and 1.

    Returns:
        The interval; its estimate is the geometric mean of the ratios.

    Raises:
        DataError: The two are not equally long, shorter than two, or hold a figure that is not positive.
        InputError: ``confidence`` is not between 0 and 1.

    Example:
        >>> round(ratio_interval([1.0, 2.0, 4.0], [1.1, 2.2, 4.4]).estimate, 3)
        1.1
    """
    before, after = _paired(baseline, other)
    if min(before.min(initial=1.0), after.min(initial=1.0)) <= 0:
        raise DataError("Expected times above 0. Received: a time of 0 or less. Remove blocks in which nothing ran.")
    found = mean_interval(np.log(after / before).tolist(), confidence)
    return Interval(math.exp(found.estimate), math.exp(found.low), math.exp(found.high), found.confidence, found.count)


def separate_ratio_interval(
    baseline: Sequence[float], other: Sequence[float], confidence: float = 0.95, *, drift: float = 0.0
) -> Interval:
    """Return the interval of the ratio ``other / baseline`` of two runs that were not measured in turns.

    It is Welch's interval of the difference of the means of the logarithms, with the degrees of freedom of
    Satterthwaite (Welch, Biometrika 34, 1947), taken back from the logarithm. What changed on the machine
    between the runs is in no spread of either: ``drift`` is how much of it is allowed for.

    Args:
        baseline: Times of the baseline: at least two.
        other: Times of the other run: at least two.
        confidence: Between 0 and 1.
        drift: By which part the machine may have become slower or faster in between: 0.1 is a tenth.

    Returns:
        The interval; ``count`` is the smaller of the two.

    Raises:
        DataError: One is shorter than two, or holds a figure that is not positive.

    Example:
        >>> interval = separate_ratio_interval([1.0, 1.0], [2.0, 2.0], drift=0.1)
        >>> round(interval.low, 3), interval.estimate, round(interval.high, 3)
        (1.818, 2.0, 2.2)
    """
    groups = [_figures(values, "times") for values in (baseline, other)]
    if min(group.size for group in groups) < 2 or min(group.min() for group in groups) <= 0:
        raise DataError("Expected at least two times above 0 of each run. Received: fewer. Measure again.")
    logs = [np.log(group) for group in groups]
    errors = [float(log.var(ddof=1)) / log.size for log in logs]
    freedom = (
        sum(errors) ** 2 / sum(error**2 / (log.size - 1) for error, log in zip(errors, logs, strict=True) if error)
        if any(errors)
        else 1.0
    )
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(sum(errors)) + math.log1p(drift)
    middle = float(logs[1].mean() - logs[0].mean())
    count = min(group.size for group in groups)
    return Interval(math.exp(middle), math.exp(middle - half), math.exp(middle + half), confidence, count)


def difference_interval(baseline: Sequence[float], other: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the interval of the mean of ``other[i] - baseline[i]``: one figure a seed, or a sample.

    Args:
        baseline: Figures of the baseline: at least two.
        other: Those of the other run, for the same seeds or samples.
        confidence: Between 0 and 1.

    Returns:
        The interval.

    Raises:
        DataError: The two are not equally long, or shorter than two.
        InputError: ``confidence`` is not between 0 and 1.

    Example:
        >>> difference_interval([0.90, 0.92], [0.91, 0.93]).high
        0.010000000000000009
    """
    before, after = _paired(baseline, other)
    return mean_interval((after - before).tolist(), confidence)


def folded(values: Sequence[float]) -> list[float]:
    """Return one figure for each pair of neighbouring rounds, forth and back: their geometric mean.

    In the order A B, B A, each run is once first and once last: a machine that slows down evenly
    slows both alike, and the drift goes out of the ratio. A last round without a partner is left out.

    Args:
        values: One positive time a round.

    Returns:
        Half as many.

    Raises:
        DataError: A figure is not positive.

    Example:
        >>> folded([1.0, 4.0, 9.0])
        [2.0]
    """
    array = _figures(values, "times")
    if array.size and array.min() <= 0:
        raise DataError("Expected times above 0. Received: a time of 0 or less. Remove rounds in which nothing ran.")
    whole = array[: array.size // 2 * 2].reshape(-1, 2)
    return [float(value) for value in np.sqrt(whole.prod(axis=1))]


def mcnemar(baseline: npt.ArrayLike, other: npt.ArrayLike) -> McNemar:
    """Compare two classifiers on the same samples, exactly.

    Of the samples on which only one is right, each would be right in half, were they equally good:
    the p-value is that of the binomial distribution, two-sided (McNemar, Psychometrika 12, 1947; the
    exact form is recommended by Dietterich, Neural Computation 10, 1998, for few such samples).

    Args:
        baseline: Shape (n,): whether the baseline got each sample right.
        other: Shape (n,): whether the other did.

    Returns:
        The counts and the p-value; 1.0 where both are right on the same samples.

    Raises:
        DataError: The shapes differ.

    Example:
        >>> mcnemar([1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]).p_value
        0.03125
    """
    before, after = (np.asarray(each, dtype=bool).ravel() for each in (baseline, other))
    if before.size != after.size:
        raise DataError(
            f"Expected answers to the same samples. Received: {before.size} and {after.size}. Use one test set for both."
        )
    lost, won = int(np.sum(before & ~after)), int(np.sum(~before & after))
    p_value = float(stats.binomtest(lost, lost + won, 0.5).pvalue) if lost + won else 1.0
    return McNemar(lost, won, p_value)


def _paired(baseline: Sequence[float], other: Sequence[float]) -> tuple[Array, Array]:
    before, after = _figures(baseline, "figures of the baseline"), _figures(other, "figures of the other run")
    if before.size != after.size:
        raise DataError(
            f"Expected as many figures of one run as of the other. Received: {before.size} and {after.size}. "
            "Pair them by block, or by seed, first."
        )
    return before, after


def _figures(values: Sequence[float], what: str) -> Array:
    array = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(array).all():
        raise DataError(f"Expected finite {what}. Received: NaN or infinity among {array.size}. Leave such runs out.")
    return array
