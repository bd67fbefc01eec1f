"""The strategy, on a net of which every plan is known."""

import itertools
import math

import numpy as np
import pytest

from keras_precision.core.errors import SearchError
from keras_precision.export.plan_space import Space, Unit
from keras_precision.scoring.scores import accuracy
from keras_precision.search.objective.budget import Budget
from keras_precision.search.objective.goal import Goal
from keras_precision.search.objective.score import Score
from keras_precision.search.strategy.error_model import ErrorModel
from keras_precision.search.strategy.strategy import Strategy
from keras_precision.search.strategy.trials import TrialOutcome, front_of, raise_infeasible

UNITS = 7


class Known:
    """A net whose layers shift the logits, with interactions that no sum of single layers shows."""

    def __init__(self, seed=0):
        random = np.random.default_rng(seed)
        logits = random.normal(size=(96, 5)) * 2
        single = random.normal(size=(UNITS, 96, 5)) * random.lognormal(-1.5, 0.7, (UNITS, 1, 1))
        pairs = random.normal(size=(UNITS, UNITS, 96, 5)) * 0.05
        self.sizes = random.integers(40, 400, UNITS)
        self.space = Space(
            tuple(Unit(f"layer_{number}", (f"layer_{number}",), ("int8", "int4")) for number in range(UNITS)), "int8"
        )
        self.reference = [self._softmax(logits)]
        self.truth = logits.argmax(axis=1)
        self.plans = list(itertools.product(["int8", "int4"], repeat=UNITS))
        errors = ErrorModel(self.reference, self.plans[0])
        self.answers, self.figures = {}, {}
        for plan in self.plans:
            low = np.array([choice == "int4" for choice in plan])
            moved = logits + single[low].sum(axis=0) + pairs[low][:, low].sum(axis=(0, 1))
            self.answers[plan] = [self._softmax(moved)]
            right = accuracy(self.truth, self.answers[plan][0])
            self.figures[plan] = {
                "size_bytes": float(1000 + self.sizes.sum() - (self.sizes[low] // 2).sum()),
                "divergence": errors.divergence(self.answers[plan]),
                "accuracy": right,
                "metric_drop": 1.0 - right,
            }

    @staticmethod
    def _softmax(logits):
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return odds / odds.sum(axis=-1, keepdims=True)

    def strategy(self, goal, *, labels=False, **options):
        """Return a strategy for this net."""
        score = Score("accuracy", "max", accuracy) if labels else None
        truth = self.truth if labels else None
        return Strategy(self.space, goal, self.reference, truth, score, 1.0 if labels else math.nan, **options)

    def search(self, strategy, most=200):
        """Run rounds to the end; return the plans in the order in which they were run."""
        order, todo = [], strategy.first_round()
        while todo and len(order) < most:
            for plan in todo:
                strategy.learn(plan, self.figures[plan], self.answers[plan])
            order += todo
            todo = strategy.next_round()
        return order


@pytest.fixture(scope="module")
def net():
    """The net."""
    return Known()


@pytest.mark.parametrize("share", [0.9, 0.85, 0.8, 0.74])
def test_the_optimum_within_a_size_is_reached_with_few_plans(net, share):
    """Within two percent of the best of all 128 plans, with the sweep and at most a dozen more."""
    limit = share * net.figures[net.plans[0]]["size_bytes"]
    strategy = net.strategy(Goal("divergence", "min", Budget(max_size_bytes=limit)))
    order = net.search(strategy)
    allowed = [figures["divergence"] for figures in net.figures.values() if figures["size_bytes"] <= limit]
    assert strategy.best().figures["divergence"] <= 1.02 * min(allowed)
    assert strategy.best().figures["size_bytes"] <= limit
    assert len(order) == len(set(order)) <= 1 + UNITS + 12
    assert 0 <= strategy.gap <= 0.02


@pytest.mark.parametrize("drop", [0.0, 0.05, 0.15])
def test_the_smallest_file_within_a_drop_is_reached(net, drop):
    """The file is within five percent of the smallest of all plans that keep the accuracy."""
    strategy = net.strategy(Goal("size_bytes", "min", Budget(max_metric_drop=drop)), labels=True)
    net.search(strategy)
    allowed = [figures["size_bytes"] for figures in net.figures.values() if figures["metric_drop"] <= drop]
    assert strategy.best().figures["metric_drop"] <= drop
    assert strategy.best().figures["size_bytes"] <= 1.05 * min(allowed)


def test_the_best_accuracy_within_a_size_is_reached(net):
    """No plan that is as small has two more percent of accuracy."""
    strategy = net.strategy(Goal("accuracy", "max", Budget(max_size_bytes=1900)), labels=True)
    net.search(strategy)
    allowed = [figures["accuracy"] for figures in net.figures.values() if figures["size_bytes"] <= 1900]
    assert strategy.best().figures["accuracy"] >= max(allowed) - 0.02


def test_the_front_is_complete(net):
    """At every size, what was run diverges by at most a tenth more than the best of all plans, and few were run."""
    strategy = net.strategy(Goal("front", "min", Budget()))
    order = net.search(strategy)
    true = front_of(
        [TrialOutcome("", plan, figures) for plan, figures in net.figures.items()], ("size_bytes", "divergence")
    )
    for point in true:
        ran = [net.figures[assignment] for assignment in order]
        smaller = [figures["divergence"] for figures in ran if figures["size_bytes"] <= point.figures["size_bytes"]]
        assert min(smaller) <= 1.1 * max(point.figures["divergence"], 1e-4)
    assert len(order) < 50


def test_a_budget_that_no_plan_meets_has_no_best_plan(net):
    """Where no plan can be so small, the search ends, with neither a best plan nor a gap."""
    strategy = net.strategy(Goal("divergence", "min", Budget(max_size_bytes=500)))
    assert net.search(strategy) == strategy.first_round()
    assert strategy.best() is None
    assert strategy.gap is None


def test_a_choice_that_cannot_be_run_is_left_out(net):
    """A layer whose lowering failed alone is not lowered again."""
    strategy = net.strategy(Goal("divergence", "min", Budget(max_size_bytes=2000)))
    broken = strategy.first_round()[1]
    for plan in strategy.first_round():
        if plan == broken:
            strategy.fail(plan)
        else:
            strategy.learn(plan, net.figures[plan], net.answers[plan])
    todo = strategy.next_round()
    assert todo
    assert all(plan[0] == "int8" for plan in todo)


def test_without_the_baseline_there_is_no_next_round(net):
    """Where the baseline itself could not be run, nothing can be said."""
    strategy = net.strategy(Goal("front", "min", Budget()))
    strategy.fail(strategy.first_round()[0])
    assert strategy.next_round() == []


def test_a_front_has_every_point_once():
    """A plan that another beats, or equals, is not on the front."""
    points = [(2, 2), (1, 3), (3, 1), (2, 2), (3, 3), (2, 3)]
    outcomes = [TrialOutcome(str(number), (), {"a": a, "b": b}) for number, (a, b) in enumerate(points)]
    assert [outcome.trial for outcome in front_of(outcomes, ("a", "b"))] == ["1", "0", "2"]


@pytest.mark.parametrize("figure", ["size_bytes", "divergence", "front"])
def test_without_a_plan_that_ended_well_there_are_no_finalists(net, figure):
    """All plans failed: none is worth a training."""
    assert net.strategy(Goal(figure, "min", Budget())).finalists(3) == []


@pytest.mark.parametrize(
    ("figure", "budget"), [("divergence", Budget()), ("size_bytes", Budget()), ("front", Budget())]
)
def test_a_plan_that_quantizes_nothing_is_no_finalist(net, figure, budget):
    """It may be the best of all, and there is nothing in it to train for."""
    names = {"int8": "float32", "int4": "int8"}
    space = Space(tuple(Unit(unit.name, unit.paths, ("float32", "int8")) for unit in net.space.units), "float32")
    strategy = Strategy(space, Goal(figure, "min", budget), net.reference)
    for plan in [net.plans[0], *net.space.single()]:
        strategy.learn(tuple(names[choice] for choice in plan), net.figures[plan], net.answers[plan])
    finalists = strategy.finalists(4)
    assert finalists
    assert ("float32",) * UNITS not in finalists


def test_the_nearest_of_plans_that_are_all_too_large_is_told():
    """A search that found none within its budget says how near it came."""
    outcomes = [TrialOutcome(name, ("high",), {"size_bytes": size}) for name, size in (("00", 900.0), ("01", 700.0))]
    with pytest.raises(SearchError, match="Received: none among 2; the nearest has size_bytes 700. Widen the budget"):
        raise_infeasible(outcomes, Budget(max_size_bytes=500))
