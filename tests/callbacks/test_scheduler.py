"""PrecisionScheduler: precision by epoch, and a training that fails continues with the failing layer in float32."""

import math
import warnings

import faulty
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import (
    InputError,
    ModelError,
    NotMeasuredError,
    PlanError,
    PlanKindError,
    UnknownLayerError,
    UnknownPrecisionError,
)


def fitted(model, scheduler, data, **options):
    """Fit in order; return the history."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)
        options = {"batch_size": 8, "shuffle": False, "verbose": 0, "callbacks": [scheduler]} | options
        return model.fit(*data, **options)


def samples(rng, scale=1.0):
    """Samples for 8 batches of 8, and targets."""
    return (rng.normal(size=(64, 8)) * scale).astype("float32"), rng.normal(size=(64, 1)).astype("float32")


@pytest.mark.every_stack
def test_policies_by_epoch(stack, rng):
    """Every epoch computes in its scheduled precision, training continues from the same weights, and the result records it."""
    model = faulty.net(stack.keras)
    plan = kp.PrecisionPlan.training("mixed_float16", layers={"last": "float32"})
    seen = []
    watch = stack.keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((model.get_layer("first").compute_dtype, logs["loss"]))
    )
    scheduler = kp.PrecisionScheduler({0: "float32", 1: plan, 3: "mixed_bfloat16"})
    fitted(model, scheduler, samples(rng), epochs=4, callbacks=[scheduler, watch])
    assert [dtype for dtype, _ in seen] == ["float32", "float16", "float16", "bfloat16"]
    losses = [loss for _, loss in seen]
    assert losses == sorted(losses, reverse=True)
    assert [(row.value, row.step) for row in scheduler.result.select("precision_set")] == [
        ("float32", 0), ("mixed_float16", 1), ("mixed_bfloat16", 3),
    ]  # fmt: skip
    assert scheduler.result.plan == kp.plan_of(model)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.every_stack
@pytest.mark.parametrize("scaled", [False, True])
def test_a_training_that_breaks_goes_on(stack, rng, scaled):
    """exp overflows in float16: with loss scaling or without, the layer gets float32, and the run ends well."""
    stack.keras.utils.set_random_seed(2)
    with kp.precision("mixed_float16"):
        boom = faulty.boom(stack.keras, name="boom")
    first = stack.keras.layers.Dense(8, name="lower", kernel_initializer="identity", dtype="mixed_float16")
    soften = stack.keras.layers.Rescaling(1e-6, name="soften", dtype="float32")  # so that gradients are small
    model = faulty.net(stack.keras, first, boom, soften)
    model.get_layer("first").set_weights([np.eye(8), np.zeros(8)])
    if scaled:
        model = kp.apply_plan(model, kp.plan_of(model))
    model.optimizer.learning_rate = 0.0
    x, y = samples(rng, 0.1)
    x[24] = 12.0  # exp(12) is infinite in float16, and finite in float32
    scheduler = kp.PrecisionScheduler(on_instability="raise_precision")
    history = fitted(model, scheduler, (x, y), epochs=2)
    (row,) = scheduler.result.select("precision_raised")
    assert (row.subject, row.value, row.step) == ("boom", "float32", 4)
    assert scheduler.result.plan.precision_of("boom") == "float32"
    assert scheduler.result.plan.precision_of("lower") == "mixed_float16"
    assert math.isfinite(history.history["loss"][-1])
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.every_stack
def test_a_batch_that_is_broken_itself_is_left_out(stack, rng):
    """NaN in the data raises nothing: the step is undone, and the training goes on."""
    model = faulty.net(stack.keras)
    x, y = samples(rng)
    x[20, 3] = np.nan
    scheduler = kp.PrecisionScheduler(on_instability="raise_precision", window=3)
    fitted(model, scheduler, (x, y))
    assert [row.subject for row in scheduler.result.select("first_non_finite")] == ["batch/inputs"]
    assert not scheduler.result.select("precision_raised")
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        ([{-1: "float32"}], {}, InputError, "whole numbers >= 0. Received: -1"),
        (["float32"], {}, InputError, "Expected a mapping of epochs"),
        ([{0: "float12"}], {}, UnknownPrecisionError, "float12"),
        ([{0: kp.PrecisionPlan.deployment("int8")}], {}, PlanKindError, "Expected a training plan"),
        ([], {"on_instability": "panic"}, InputError, "'raise_precision' or None. Received: 'panic'"),
        ([], {"window": 0}, InputError, "Expected window"),
    ],
)
def test_wrong_arguments_are_refused(arguments, options, error, match):
    """What cannot be done is refused before a fit begins."""
    with pytest.raises(error, match=match):
        kp.PrecisionScheduler(*arguments, **options)


def test_a_plan_for_another_model_is_refused_before_training(rng):
    """A layer that the model does not have is named, with the nearest; nothing is trained, and there is no result."""
    import keras

    model = faulty.net(keras)
    scheduler = kp.PrecisionScheduler({1: kp.PrecisionPlan.training(layers={"lost": "float32"})})
    before = model.get_weights()
    with pytest.raises(UnknownLayerError, match="Did you mean 'last'"):
        fitted(model, scheduler, samples(rng))
    assert all((one == other).all() for one, other in zip(before, model.get_weights(), strict=True))
    with pytest.raises(NotMeasuredError):
        _ = scheduler.result


def test_a_fit_whose_state_cannot_be_restored_is_refused(stack, rng):
    """Groups of batches hide the single one; without restoring, they are no hindrance."""
    if stack.name == "torch":
        pytest.skip("has no groups of batches")
    keras = stack.keras
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=2)
    data = np.zeros((8, 8), "float32"), np.zeros(8, "float32")
    scheduler = kp.PrecisionScheduler({0: "float32"}, on_instability="raise_precision")
    with pytest.raises(ModelError, match="can be restored. Received: steps_per_execution.*Pass on_instability=None"):
        model.fit(*data, verbose=0, callbacks=[scheduler])


def test_a_policy_that_no_plan_has_is_refused_before_the_first_step(stack, rng):
    """And not at the end, where the history would be lost."""
    layers = stack.keras.layers
    model = stack.keras.Sequential([layers.Input((8,)), layers.Dense(1, dtype="float16", name="plain")])
    model.compile("sgd", "mse")
    before = model.get_weights()
    with pytest.raises(PlanError, match="'plain' with 'float16'"):
        model.fit(np.ones((8, 8)), np.ones((8, 1)), verbose=0, callbacks=[kp.PrecisionScheduler({0: "mixed_bfloat16"})])
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
