"""Budgets and goals: which plan is within, and which of two is better."""

import math

import pytest

import keras_precision as kp
from keras_precision.core.errors import InputError
from keras_precision.search.objective.goal import Goal


@pytest.mark.parametrize(
    ("figures", "within", "excess"),
    [
        ({"size_bytes": 1000, "metric_drop": 0.01}, True, 0.0),
        ({"size_bytes": 1100, "metric_drop": 0.01}, False, 0.1),
        ({"size_bytes": 1100, "metric_drop": 0.015}, False, 0.6),
        ({"size_bytes": 900}, False, math.inf),
        ({"size_bytes": 900, "metric_drop": math.nan}, False, math.inf),
        ({"size_bytes": 900, "metric_drop": -0.5}, True, 0.0),
    ],
)
def test_every_limit_counts(figures, within, excess):
    """A figure above its limit, missing or NaN is beyond the budget, by the share that it exceeds."""
    budget = kp.Budget(max_size_bytes=1000, max_metric_drop=0.01)
    assert budget.is_satisfied_by(figures) == within
    assert budget.excess(figures) == pytest.approx(excess)


def test_no_limit_is_satisfied_by_anything():
    """A budget without limits is satisfied by a plan of which nothing is known."""
    assert kp.Budget().is_satisfied_by({})


def test_a_limit_of_zero_allows_no_loss():
    """Zero is a limit, and what exceeds it is counted as it is."""
    assert kp.Budget(max_metric_drop=0).excess({"metric_drop": 0.25}) == 0.25


@pytest.mark.parametrize(
    "limits", [{"max_size_bytes": 0}, {"max_size_bytes": -1}, {"max_latency_ms": math.nan}, {"max_metric_drop": "1 %"}]
)
def test_limits_that_mean_nothing_are_refused(limits):
    """A limit is a positive number."""
    with pytest.raises(InputError, match=f"Expected {next(iter(limits))} to be"):
        kp.Budget(**limits)


def test_the_score_puts_plans_within_the_budget_first():
    """For oracles that know no budget, any plan within has a better score than any beyond, however small that one is."""
    goal = Goal("size_bytes", "min", kp.Budget(max_metric_drop=0.01), scale=1000.0)
    within, beyond = {"size_bytes": 990, "metric_drop": 0.0}, {"size_bytes": 10, "metric_drop": 0.02}
    assert goal.score(within) < goal.score(beyond) < goal.score({**beyond, "metric_drop": 0.03})


def test_a_metric_of_which_more_is_better_costs_less_where_it_is_higher():
    """The cost of an accuracy is its negative."""
    goal = Goal("accuracy", "max", kp.Budget())
    assert goal.cost({"accuracy": 0.9}) < goal.cost({"accuracy": 0.8})
