"""PrecisionHyperModel: training precisions under KerasTuner's own tuners."""

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import InputError, PlanError, UnknownPrecisionError
from keras_precision.search.groups import group_layers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of KerasTuner and protobuf


def build(hp):
    """A compiled net with a hyperparameter of its own."""
    import keras

    model = nets.mlp(keras)
    model.compile(
        keras.optimizers.Adam(hp.Choice("rate", [0.01, 0.02])), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def hyperparameters():
    """Return KerasTuner's empty hyperparameters."""
    import keras_tuner

    return keras_tuner.HyperParameters()


def test_every_group_has_a_choice_and_the_model_is_in_the_plan():
    """The choices stand beside the user's own, and the layers compute in them."""
    hp = hyperparameters()
    hypermodel = kp.PrecisionHyperModel(build, ("float32", "mixed_bfloat16"), groups={"body": "hidden"})
    hypermodel.build(hp)
    assert set(hp.values) == {"rate", "precision/body"}
    hp.values["precision/body"] = "mixed_bfloat16"
    plan = kp.plan_of(hypermodel.build(hp))
    assert (plan.precision_of("hidden"), plan.precision_of("head")) == ("mixed_bfloat16", "float32")


def test_one_choice_for_the_model_scales_the_loss_where_that_is_due():
    """In mixed_float16 the whole model is, and the optimizer scales the loss."""
    import keras

    hp = hyperparameters()
    hp.Fixed("precision/model", "mixed_float16")
    model = kp.PrecisionHyperModel(build).build(hp)
    assert kp.plan_of(model) == kp.PrecisionPlan.training("mixed_float16")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert keras.config.dtype_policy().name == "float32"


def test_groups_of_layers():
    """By layer, by block, by what repeats, and by names."""
    import keras

    layers = kp.layer_paths(nets.nested(keras))
    assert group_layers(layers, "model") == {"model": ("shared", "block/core/core_dense", "block/block_dense", "head")}
    assert group_layers(layers, "layer") == {path: (path,) for path in layers}
    assert group_layers(layers, "block") == {
        "shared": ("shared",), "block/core": ("block/core/core_dense",), "block": ("block/block_dense",), "head": ("head",),
    }  # fmt: skip
    assert group_layers(layers, "repeated") == {
        "shared": ("shared", "block/core/core_dense", "block/block_dense"), "head": ("head",),
    }  # fmt: skip
    with pytest.raises(PlanError, match="matched by"):
        group_layers(layers, {"one": "block/.*", "other": ".*dense"})
    with pytest.raises(PlanError, match="Expected every pattern to match a layer"):
        group_layers(layers, {"one": "nothing"})


@pytest.mark.slow
def test_a_tuner_of_keras_tuner_chooses_precision_with_everything_else(rng, tmp_path):
    """Each trial has the profiler's figures; one whose loss is not finite is a failed trial with its finding."""
    import keras
    import keras_tuner

    def overflowing(hp):
        features = keras.Input((8,))
        x = keras.layers.Rescaling(3e4)(features)  # finite in float32, infinite in float16
        x = keras.layers.Dense(8, kernel_initializer="ones", name="wide")(x)
        outputs = keras.layers.Dense(1, kernel_initializer="ones", name="head")(keras.layers.Rescaling(1e-7)(x))
        model = keras.Model(features, outputs)
        model.compile(keras.optimizers.SGD(hp.Choice("rate", [1e-4])), "mse")
        return model

    hypermodel = kp.PrecisionHyperModel(overflowing, ("float32", "mixed_float16"))
    tuner = keras_tuner.GridSearch(
        hypermodel, objective=keras_tuner.Objective("loss", "min"), directory=tmp_path, project_name="training"
    )
    x = np.abs(rng.normal(size=(64, 8)).astype("float32")) + 1
    tuner.search(x, np.ones((64, 1), "float32"), epochs=2, batch_size=16, verbose=0)
    trials = {trial.hyperparameters.get("precision/model"): trial for trial in tuner.oracle.trials.values()}
    assert trials["float32"].status == "COMPLETED"
    assert trials["float32"].metrics.get_history("step_time_ms")[0].value[0] > 0
    assert trials["mixed_float16"].status == "FAILED"
    assert "Expected a loss that stays finite. Received: " in trials["mixed_float16"].message
    assert tuner.get_best_hyperparameters()[0].get("precision/model") == "float32"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"precisions": ("float32",)}, InputError, "two or more precisions"),
        ({"precisions": ("float32", "int8")}, UnknownPrecisionError, "'int8' is a deployment precision"),
        ({"groups": "blocks"}, InputError, "Expected groups to be one of model, layer, block, repeated"),
        ({"build": 3}, InputError, "Expected a function of hp"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments, error, message):
    """Before anything is built."""
    with pytest.raises(error, match=message):
        kp.PrecisionHyperModel(**({"build": build} | arguments))


def test_a_trial_whose_loss_is_not_finite_is_a_failed_one():
    """KerasTuner is told so, with the epoch."""
    import keras
    import keras_tuner

    def build(hp):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    hypermodel, choices = kp.PrecisionHyperModel(build, ("float32", "mixed_bfloat16")), keras_tuner.HyperParameters()
    with pytest.raises(
        keras_tuner.errors.FailedTrialError, match=r"loss that stays finite. Received: (nan|inf) in epoch 1"
    ):
        hypermodel.fit(choices, hypermodel.build(choices), np.full((4, 2), np.inf), np.zeros(4), verbose=0)
