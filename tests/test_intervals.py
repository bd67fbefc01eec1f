"""Statistics: against SciPy and closed forms, and by simulation with seeds."""

import math

import numpy as np
import pytest
from scipy import stats

from keras_precision.comparison.intervals import (
    Interval,
    difference_interval,
    mcnemar,
    mean_interval,
    pair_rounds,
    ratio_interval,
    separate_ratio_interval,
)
from keras_precision.core.errors import DataError, InputError

T_1 = math.tan(0.475 * math.pi)  # the 97.5 % quantile of Student's t with one degree of freedom


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_the_interval_of_a_mean_is_that_of_scipy(rng: np.random.Generator, confidence: float) -> None:
    """Both ends are those of SciPy's one-sample t test."""
    values = rng.normal(3, 2, 7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    interval = mean_interval(values.tolist(), confidence)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert (interval.estimate, interval.count, interval.confidence) == (pytest.approx(values.mean()), 7, confidence)


def test_a_ratio_that_is_the_same_in_every_block_is_certain() -> None:
    """Without any spread, the interval is a point: the ratio."""
    interval = ratio_interval([1.0, 2.0, 8.0], [1.5, 3.0, 12.0])
    assert [interval.estimate, interval.low, interval.high] == pytest.approx([1.5] * 3)


def test_a_ratio_and_its_inverse_are_alike(rng: np.random.Generator) -> None:
    """Exchanging the two runs turns both ends into the inverse of the other."""
    first, second = rng.lognormal(size=9), rng.lognormal(size=9)
    there, back = ratio_interval(first, second), ratio_interval(second, first)
    assert (there.low, there.estimate) == pytest.approx((1 / back.high, 1 / back.estimate))


def test_the_ratio_of_blocks_is_scipys_interval_of_logarithms(rng: np.random.Generator) -> None:
    """The interval is that of a paired t test on logarithms."""
    first, second = rng.lognormal(size=9), rng.lognormal(size=9)
    expected = stats.ttest_rel(np.log(second), np.log(first)).confidence_interval(0.95)
    interval = ratio_interval(first, second)
    assert (interval.low, interval.high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))


def test_the_difference_is_scipys_paired_test(rng: np.random.Generator) -> None:
    """The interval of a paired difference is that of SciPy."""
    first, second = rng.normal(size=5), rng.normal(size=5)
    expected = stats.ttest_rel(second, first).confidence_interval(0.95)
    interval = difference_interval(first, second)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_the_ratio_of_separate_runs_is_welchs_interval() -> None:
    """Both ends are those of Welch's formulas, with a quantile that is computed without SciPy."""
    first, second = (
        [1.0, math.e**2, math.e**4],
        [math.e, math.e**3, math.e**4, math.e**4],
    )  # logarithms 0 2 4 and 1 3 4 4
    # Means 2 and 3, variances 4 and 2, squared errors 4/3 and 1/2; freedom (11/6)^2 / ((4/3)^2 / 2 + (1/2)^2 / 3).
    freedom = (11 / 6) ** 2 / (8 / 9 + 1 / 12)
    quantile = _student_quantile(0.975, freedom)
    half_width = quantile * math.sqrt(11 / 6) + math.log(1.1)
    interval = separate_ratio_interval(first, second, drift=0.1)
    expected = [math.exp(1), math.exp(1 - half_width), math.exp(1 + half_width)]
    assert [interval.estimate, interval.low, interval.high] == pytest.approx(expected, rel=1e-6)
    assert (interval.confidence, interval.count) == (0.95, 3)


def _student_quantile(probability: float, freedom: float) -> float:
    """Return a quantile of Student's t by bisection of its integrated density, without SciPy."""
    scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))

    def distribution(end: float) -> float:
        middles = (np.arange(20_000) + 0.5) * end / 20_000
        return 0.5 + float(np.sum(scale * (1 + middles**2 / freedom) ** (-(freedom + 1) / 2))) * end / 20_000

    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if distribution(middle) < probability else (low, middle)
    return (low + high) / 2


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ([1.0, 1.0], [2.0, 2.0], 2.0, 2.0),
        ([1.1, 1.1, 1.1], [1.1, 1.1, 1.1], 1.0, 1.0),
        # One degree of freedom, that of the run with a spread, where t is the tangent: of 97.5 %, tan(0.475 pi).
        ([1.0, 1.0], [2.0, 2.1], 2.1 ** ((1 - T_1) / 2) * 2.0 ** ((1 + T_1) / 2), 2.1 ** ((1 + T_1) / 2) * 2.0 ** ((1 - T_1) / 2)),
    ],
)  # fmt: skip
def test_separate_runs_without_a_spread_are_certain(
    first: list[float], second: list[float], low: float, high: float
) -> None:
    """A run whose times are all equal adds nothing to the interval, and no warning of SciPy reaches the caller."""
    interval = separate_ratio_interval(first, second)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-6)


def test_an_interval_that_touches_a_bound_is_on_neither_side_of_it() -> None:
    """An end that equals the bound is not beyond it, as a test at that confidence demands."""
    interval = Interval(2.0, 1.0, 4.0, 0.95, 3)
    assert not interval.lies_above(1.0)
    assert not interval.lies_below(4.0)
    assert interval.lies_above(0.99)
    assert interval.lies_below(4.01)


def test_the_inverse_of_a_ratio_has_inverse_ends() -> None:
    """A ratio of times between 1/2 and 4 is a ratio of rates between 1/4 and 2."""
    assert Interval(2.0, 0.5, 4.0, 0.95, 3).inverse() == Interval(0.5, 0.25, 2.0, 0.95, 3)


@pytest.mark.parametrize("count", [2, 3, 12])
def test_intervals_hold_the_truth_as_often_as_they_say(rng: np.random.Generator, count: int) -> None:
    """Of 2,000 A/A comparisons with few blocks, no more leave 1 out than 95 % confidence allows (p > 0.001)."""
    load = rng.lognormal(0, 0.5, (2000, count))  # shared by both runs of a block
    first, second = (load * rng.lognormal(0, 0.05, load.shape) for _ in range(2))
    intervals = [ratio_interval(a, b) for a, b in zip(first, second, strict=True)]
    wrong = sum(interval.lies_above(1) or interval.lies_below(1) for interval in intervals)
    assert stats.binomtest(wrong, 2000, 0.05).pvalue > 0.001


def test_a_percentile_bootstrap_over_three_figures_does_not(rng: np.random.Generator) -> None:
    """What the studentized interval is there for: the plain bootstrap is wrong far more often than 5 %."""
    logs = rng.normal(0, 0.05, (500, 3))
    draws = rng.integers(0, 3, (500, 400, 3))
    means = np.take_along_axis(logs[:, None, :], draws, axis=2).mean(axis=2)
    low, high = np.percentile(means, (2.5, 97.5), axis=1)
    assert np.mean((low > 0) | (high < 0)) > 0.2


def test_drift_goes_out_of_folded_rounds() -> None:
    """A machine that slows down evenly does not decide between equal runs in the order A B, B A."""
    speed = [math.exp(0.05 * place) for place in range(16)]
    pairs = [(speed[place], speed[place + 1]) for place in range(0, 16, 2)]
    first = [pair[number % 2] for number, pair in enumerate(pairs)]
    second = [pair[1 - number % 2] for number, pair in enumerate(pairs)]
    assert pair_rounds(second) == pytest.approx(pair_rounds(first))
    assert ratio_interval(first, second).high > 1.02  # single rounds do not show that it was drift


def test_an_odd_round_is_left_out() -> None:
    """A round without its way back is not counted."""
    assert pair_rounds([2.0, 8.0, 5.0]) == [4.0]


def test_every_pair_of_rounds_has_its_geometric_mean() -> None:
    """Six rounds are three pairs, in their order."""
    assert pair_rounds([2.0, 8.0, 1.0, 9.0, 5.0, 5.0]) == pytest.approx([4.0, 3.0, 5.0])


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (6, 0), (5, 9), (30, 12)])
def test_mcnemar_is_the_binomial_test(lost: int, won: int) -> None:
    """The p-value is the two-sided sum of binomial probabilities, however many samples both got right."""
    baseline = [True] * lost + [False] * won + [True] * 50 + [False] * 7
    other = [False] * lost + [True] * won + [True] * 50 + [False] * 7
    count = lost + won
    tail = sum(math.comb(count, k) for k in range(max(lost, won), count + 1)) / 2**count
    test = mcnemar(baseline, other)
    assert test.p_value == pytest.approx(min(1.0, 2 * tail))
    assert (test.only_baseline, test.only_other) == (lost, won)


def test_mcnemar_names_few_winners_among_equals(rng: np.random.Generator) -> None:
    """Two classifiers that err independently and equally often differ at the 5 % level in at most 5 % of 1,000 tests."""
    right = rng.random((1000, 2, 200)) < 0.9
    assert np.mean([mcnemar(first, second).p_value < 0.05 for first, second in right]) <= 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1.0]), "Expected at least two values, because one has no spread. Received: 1"),
        (lambda: mean_interval([1.0, math.nan]), "Expected finite values. Received: NaN or infinity among 2"),
        (lambda: ratio_interval([1.0, 2.0], [1.0]), "as many values of one run as of the other. Received: 2 and 1"),
        (lambda: ratio_interval([1.0, 2.0], [1.0, 0.0]), "Expected times above 0. Received: a time of 0 or less"),
        (lambda: separate_ratio_interval([1.0], [1.0, 2.0]), "Expected at least two times above 0 of each run"),
        (lambda: separate_ratio_interval([1.0, 2.0], [1.0]), "Expected at least two times above 0 of each run"),
        (lambda: separate_ratio_interval([0.0, 1.0], [1.0, 2.0]), "Expected at least two times above 0 of each run"),
        (lambda: separate_ratio_interval([1.0, 2.0], [1.0, 0.0]), "Expected at least two times above 0 of each run"),
        (lambda: pair_rounds([1.0, 0.0]), "Expected times above 0. Received: a time of 0 or less"),
        (lambda: mcnemar([True], [True, False]), "Expected predictions for the same samples. Received: 1 and 2"),
    ],
)
def test_figures_that_say_nothing_are_refused(call, message: str) -> None:
    """Too few, not finite, not positive, not paired: every case has its message."""
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_is_a_share(confidence: float) -> None:
    """95 is no confidence; 0.95 is."""
    with pytest.raises(InputError, match=f"Expected a confidence between 0 and 1. Received: {confidence}"):
        mean_interval([1.0, 2.0], confidence)
