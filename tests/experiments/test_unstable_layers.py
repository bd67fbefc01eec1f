"""Bisection: the very layers that must stay high are found, in few runs."""

import math

import faulty
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import DataError, InputError, ModelError, UnknownPrecisionError
from keras_precision.experiments.unstable_layers import smallest_high


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("bad", [0, 1, 3])
def test_planted_layers_are_found_exactly(seed, bad):
    """Of 64 layers the bad ones are found, wherever they are, in about k log2(n) runs, none of them twice."""
    names = [str(number) for number in range(64)]
    planted = set(np.random.default_rng(seed).choice(names, bad, replace=False))
    runs = []

    def is_stable(lowered):
        runs.append(tuple(lowered))
        return not planted & set(lowered)

    assert set(smallest_high(names, is_stable)) == planted
    assert len(runs) <= bad * math.log2(64) + bad + 1
    assert len(set(runs)) == len(runs)


def test_layers_that_break_together_alone():
    """Where two layers may not be lowered together, one of them is kept."""
    high = smallest_high("abcdef", lambda lowered: not {"b", "e"} <= set(lowered))
    assert high == ["e"]


def test_no_layers_need_no_run():
    """A model without layers is not run."""
    assert smallest_high([], lambda lowered: pytest.fail(str(lowered))) == []


@pytest.mark.every_stack
def test_a_real_training(stack, rng):
    """The layer that overflows in float16 is found by training, each run is reported, and the model is left as it was."""
    models = []

    def build():
        model = faulty.net(
            stack.keras,
            stack.keras.layers.Rescaling(1e6, name="amplify"),
            stack.keras.layers.Rescaling(1e-6, name="soften"),
        )
        model.optimizer.learning_rate = 1e-3
        models.append(model)
        return model

    x, y = rng.normal(size=(16, 8)).astype("float32"), rng.normal(size=(16, 1)).astype("float32")
    result = kp.find_unstable_layers(build, (x, y), batch_size=8)
    (model,) = models
    assert "amplify" in result.plan.layers
    assert "first" not in result.plan.layers
    assert result.plan.default == "mixed_float16"
    assert result.select("stable", "run 1")[0].value == 0
    assert result.value("loss", "baseline") > 0
    assert kp.plan_of(model) == kp.PrecisionPlan.training("float32")


@pytest.mark.parametrize(
    ("build", "data", "options", "error"),
    [
        ("build", None, {}, InputError),
        (lambda: None, None, {}, DataError),
        (lambda: None, (np.ones(2), np.ones(2)), {"precision": "int8"}, UnknownPrecisionError),
        (lambda: None, (np.ones(2), np.ones(2)), {"tolerance": -1}, InputError),
        (lambda: None, (np.ones(2), np.ones(2)), {"epochs": 0}, InputError),
    ],
)
def test_wrong_arguments_are_refused(build, data, options, error):
    """What cannot be run is refused before a model is built."""
    with pytest.raises(error, match="Expected"):
        kp.find_unstable_layers(build, data, **options)


def test_a_baseline_that_breaks_is_refused(rng):
    """A model that has no finite loss in float32 has another fault."""
    import keras

    with pytest.raises(ModelError, match="Expected a model that trains in float32"):
        kp.find_unstable_layers(lambda: faulty.net(keras), (np.full((8, 8), np.nan), np.ones(8)))
    with pytest.raises(ModelError, match="Expected build to return a model that is built and compiled"):
        kp.find_unstable_layers(lambda: keras.Sequential([keras.layers.Dense(1)]), (np.ones((8, 8)), np.ones(8)))
