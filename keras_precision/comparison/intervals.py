"""Intervals of ratios and differences of repeated measurements, and McNemar's test."""

import math
import warnings
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
    "mcnemar",
    "mean_interval",
    "pair_rounds",
    "ratio_interval",
    "separate_ratio_interval",
]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; ``count`` is the number of independent values behind it."""

    estimate: float
    low: float
    high: float
    confidence: float
    count: int

    def lies_above(self, bound: float) -> bool:
        """Return whether the whole interval is above a bound.

        ``lies_above(-m)`` is the non-inferiority test with margin ``m`` of Walker and Nowacki, "Understanding Equivalence
        and Noninferiority Testing", J Gen Intern Med 26 (2011).
        """
        return self.low > bound

    def lies_below(self, bound: float) -> bool:
        """Return whether the whole interval is below a bound."""
        return self.high < bound

    def inverse(self) -> "Interval":
        """Return the interval of the inverse ratio."""
        return Interval(1 / self.estimate, 1 / self.high, 1 / self.low, self.confidence, self.count)

    def exponential(self) -> "Interval":
        """Return the interval of a ratio from the interval of its logarithm."""
        return Interval(math.exp(self.estimate), math.exp(self.low), math.exp(self.high), self.confidence, self.count)


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of whether two classifiers err equally often on the same samples.

    Attributes:
        only_baseline: Number of samples that only the baseline classifies correctly.
        only_other: Number of samples that only the other classifies correctly.
        p_value: Probability of a difference at least this large if both are equally good.
    """

    only_baseline: int
    only_other: int
    p_value: float


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return Student's t interval of a mean, ``mean ± t(n - 1) * s / sqrt(n)``, of at least two independent values.

    A percentile bootstrap ignores the uncertainty of the spread: with two or three values its 95 % interval misses the
    true mean in a quarter to a half of all cases.

    Example:
        >>> interval = mean_interval([1.0, 2.0, 3.0])
        >>> round(interval.low, 3), interval.estimate, round(interval.high, 3)
        (-0.484, 2.0, 4.484)
    """
    if not 0 < confidence < 1:
        raise InputError(f"Expected a confidence between 0 and 1. Received: {confidence!r}. 0.95 is usual.")
    array = _finite_array(values, "values")
    if array.size < 2:
        raise DataError(
            f"Expected at least two values, because one has no spread. Received: {array.size}. Measure again."
        )
    mean = float(array.mean())
    half_width = float(stats.t.ppf((1 + confidence) / 2, array.size - 1) * array.std(ddof=1) / math.sqrt(array.size))
    return Interval(mean, mean - half_width, mean + half_width, confidence, array.size)


def ratio_interval(baseline: Sequence[float], other: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the interval of the ratio ``other / baseline`` of two runs with interleaved, positive measurements.

    It is the t interval of the mean of ``log(other[i] / baseline[i])``, transformed back; its estimate is the geometric
    mean of the ratios. Block ``i`` of both runs is measured at nearly the same time, so slowdowns of the machine cancel.
    Blocks, not the steps in them, are the independent values: Kalibera and Jones, "Rigorous Benchmarking in Reasonable
    Time", ISMM 2013.

    Example:
        >>> round(ratio_interval([1.0, 2.0, 4.0], [1.1, 2.2, 4.4]).estimate, 3)
        1.1
    """
    before, after = _paired(baseline, other)
    if min(before.min(initial=1.0), after.min(initial=1.0)) <= 0:
        raise DataError("Expected times above 0. Received: a time of 0 or less. Remove blocks in which nothing ran.")
    return mean_interval(np.log(after / before).tolist(), confidence).exponential()


def separate_ratio_interval(
    baseline: Sequence[float], other: Sequence[float], confidence: float = 0.95, *, drift: float = 0.0
) -> Interval:
    """Return the interval of the ratio ``other / baseline`` of two runs measured one after the other, not interleaved.

    It is Welch's interval of the difference of mean logarithms (Welch, Biometrika 34, 1947), transformed back and widened
    by ``drift``, the relative change of the machine's speed between the runs: neither run's own spread contains it.

    Example:
        >>> interval = separate_ratio_interval([1.0, 1.0], [2.0, 2.0], drift=0.1)
        >>> round(interval.low, 3), interval.estimate, round(interval.high, 3)
        (1.818, 2.0, 2.2)
    """
    runs = [_finite_array(values, "times") for values in (baseline, other)]
    if min(run.size for run in runs) < 2 or min(run.min() for run in runs) <= 0:
        raise DataError("Expected at least two times above 0 of each run. Received: fewer. Measure again.")
    before, after = (np.log(run) for run in runs)
    with warnings.catch_warnings():
        # SciPy warns of a loss of precision where all times of a run are equal; the interval is right all the same.
        warnings.simplefilter("ignore", RuntimeWarning)
        welch = stats.ttest_ind(after, before, equal_var=False).confidence_interval(confidence)
    allowance = math.log1p(drift)
    estimate = float(after.mean() - before.mean())
    count = min(run.size for run in runs)
    low, high = float(welch.low) - allowance, float(welch.high) + allowance
    return Interval(estimate, low, high, confidence, count).exponential()


def difference_interval(baseline: Sequence[float], other: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the t interval of the mean of ``other[i] - baseline[i]``, with one value per seed or per sample.

    Example:
        >>> difference_interval([0.90, 0.92], [0.91, 0.93]).high
        0.010000000000000009
    """
    before, after = _paired(baseline, other)
    return mean_interval((after - before).tolist(), confidence)


def pair_rounds(values: Sequence[float]) -> list[float]:
    """Return the geometric mean of every two neighbouring rounds of interleaved measurements (ABBA).

    In the order A B, B A both runs are first once and last once, so a linear drift of the machine cancels in the ratio. An
    odd last round is dropped.

    Example:
        >>> pair_rounds([1.0, 4.0, 9.0])
        [2.0]
    """
    array = _finite_array(values, "times")
    if array.size and array.min() <= 0:
        raise DataError("Expected times above 0. Received: a time of 0 or less. Remove rounds in which nothing ran.")
    pairs = array[: array.size // 2 * 2].reshape(-1, 2)
    return [float(mean) for mean in np.sqrt(pairs.prod(axis=1))]


def mcnemar(baseline: npt.ArrayLike, other: npt.ArrayLike) -> McNemar:
    """Return the exact, two-sided McNemar test of two classifiers, from booleans of shape (n,): classified correctly.

    The p-value is binomial (McNemar, Psychometrika 12, 1947; Dietterich, Neural Computation 10, 1998, recommends the exact
    form for few samples), and 1.0 where both are correct on the same samples.

    Example:
        >>> mcnemar([1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]).p_value
        0.03125
    """
    before, after = (np.asarray(correct, dtype=bool).ravel() for correct in (baseline, other))
    if before.size != after.size:
        raise DataError(
            f"Expected predictions for the same samples. Received: {before.size} and {after.size}. Use one test set for both."
        )
    only_baseline, only_other = int(np.sum(before & ~after)), int(np.sum(~before & after))
    discordant = only_baseline + only_other
    p_value = float(stats.binomtest(only_baseline, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemar(only_baseline, only_other, p_value)


def _paired(baseline: Sequence[float], other: Sequence[float]) -> tuple[Array, Array]:
    before = _finite_array(baseline, "values of the baseline")
    after = _finite_array(other, "values of the other run")
    if before.size != after.size:
        raise DataError(
            f"Expected as many values of one run as of the other. Received: {before.size} and {after.size}. "
            "Pair them by block, or by seed, first."
        )
    return before, after


def _finite_array(values: Sequence[float], description: str) -> Array:
    array = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(array).all():
        raise DataError(
            f"Expected finite {description}. Received: NaN or infinity among {array.size}. Leave such runs out."
        )
    return array
