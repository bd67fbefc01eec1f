"""The model of errors: outputs of plans, predicted from single layers."""

import itertools

import numpy as np
import pytest

from keras_precision.scoring.divergence import FLOOR, output_kind
from keras_precision.search.strategy.error_model import ErrorModel


def softmax(logits):
    """Return probabilities."""
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        ([[0.25, 0.75], [1.0, 0.0]], "probabilities"),
        ([[0.25], [0.75]], "probability"),
        ([0.25, 0.75], "probability"),
        ([[1.0, 2.0], [3.0, 5.0]], "values"),
        ([[0.9, 0.9], [0.1, 0.2]], "values"),
    ],
)
def test_the_kind_of_an_output_is_seen(answers, name):
    """Rows that sum to one are probabilities; single numbers from 0 to 1 are one; all else are values."""
    assert output_kind(np.array(answers)).name == name


def test_divergence_is_that_of_kullback_and_leibler():
    """Above the floor it is the sum of p log(p/q), in nats; of values, the squared difference in variances."""
    p, q = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[0.25, 0.75], [0.8, 0.2]])
    assert output_kind(p).divergence(p, q) == pytest.approx(float((p * np.log(p / q)).sum(axis=1).mean()))
    single = output_kind(p[:, :1])
    assert single.divergence(p[:, :1], q[:, :1]) == pytest.approx(float((p * np.log(p / q)).sum(axis=1).mean()))
    values = np.array([[0.0], [4.0]])
    assert output_kind(values).divergence(values, values + 1) == pytest.approx(1 / 4)


def test_channels_count_by_their_own_spread(rng):
    """A channel of numbers that is lost counts as one of as many as there are, however little it varies; a constant as nothing."""
    values = np.stack([rng.normal(0, 5e4, 400), rng.normal(0, 2, 400), np.full(400, 7.0)], axis=-1)
    noise = rng.normal(size=values.shape)
    kind = output_kind(values)
    received = kind.divergence(values, values + noise * [50, 0.02, 0.1])
    assert received == pytest.approx((1e-6 + 1e-4) / 3, rel=0.2)
    lost = [kind.divergence(values, values + noise * [50, error, 0.1]) for error in (2.5, 50, 5e4)]
    assert lost == pytest.approx([1 / 3, 1 / 3, (5e4 / kind.scale) ** 2 / 3], rel=0.15)
    shift = noise * [50, 0.02, 0.1]
    assert np.square(kind.errors(values, shift)).sum() == pytest.approx(received)


def test_what_an_int8_probability_cannot_hold_is_not_counted():
    """Probabilities under half a step of an int8 file are the same to it, and no divergence."""
    p, q = np.array([[1.0, 0.0]]), np.array([[1 - FLOOR / 2, FLOOR / 2]])
    assert output_kind(p).divergence(p, q) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("outputs", [1, 2])
def test_shifts_of_layers_add_up_where_the_last_layer_is_linear_in_them(outputs, rng):
    """Of a net in which every layer shifts the logits, the outputs of all plans follow from single layers."""
    logits = rng.normal(size=(outputs, 20, 4))
    shifts = rng.normal(scale=0.3, size=(3, outputs, 20, 4))
    plans = list(itertools.product(["a", "b"], repeat=3))

    def answers(plan):
        chosen = sum(shift for shift, choice in zip(shifts, plan, strict=True) if choice == "b")
        return list(softmax(logits + chosen))

    model = ErrorModel(list(softmax(logits)), plans[0])
    for plan in plans:
        if plan.count("b") <= 1:
            model.learn(plan, answers(plan))
    for plan in plans:
        for predicted, real in zip(model.predict(plan), answers(plan), strict=True):
            assert predicted == pytest.approx(real, abs=0.02)  # what lies under the floor is not known
    gram, cross, constant = model.gram([(number, "b") for number in range(3)])
    x = np.array([1, 1, 0])
    assert x @ gram @ x + 2 * cross @ x + constant == pytest.approx(model.divergence(answers(("b", "b", "a"))), rel=0.3)


def test_the_nearest_plan_that_was_run_is_built_on(rng):
    """Where errors do not add up, a plan that was run itself is predicted as it was, and so are its neighbours."""
    base = softmax(rng.normal(size=(20, 4)))
    odd = softmax(rng.normal(size=(20, 4)))
    model = ErrorModel([base], ("a", "a"))
    model.learn(("a", "a"), [base])
    model.learn(("b", "a"), [base])
    model.learn(("a", "b"), [base])
    assert model.predict(("b", "b"))[0] == pytest.approx(base, abs=0.01)
    model.learn(("b", "b"), [odd])
    assert model.predict(("b", "b"))[0] == pytest.approx(odd, abs=0.01)


def test_the_order_in_which_plans_are_learned_does_not_matter(rng):
    """The baseline may come last: single layers are compared with it then."""
    reference, lowered = (softmax(rng.normal(size=(8, 3))) for _ in range(2))
    model = ErrorModel([reference], ("a",))
    model.learn(("b",), [lowered])
    assert not model.knows(0, "b")
    model.learn(("a",), [reference])
    assert model.knows(0, "b")
    assert model.predict(("b",))[0] == pytest.approx(lowered, abs=0.01)
