"""The contract of the adapters: one suite for Keras 3 on every backend, and for tf_keras."""

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters import adapter_of
from keras_precision._adapters.backend import get_compute
from keras_precision._adapters.rebuild import in_float32
from keras_precision._adapters.training.callback import Callback
from keras_precision.core.errors import ModelError, PlanError

pytestmark = pytest.mark.every_stack

NAMED = {
    "conv": (nets.conv, nets.CONV_PATHS),
    "unnamed": (nets.unnamed, nets.UNNAMED_PATHS),
    "nested": (nets.nested, nets.NESTED_PATHS),
    "composite": (nets.composite, nets.COMPOSITE_PATHS),
    "subclassed": (nets.subclassed, ["first", "last"]),
}


@pytest.mark.parametrize(("build", "paths"), NAMED.values(), ids=NAMED)
def test_paths_are_the_same_on_every_stack_and_build(stack, build, paths):
    """A first and a second build give the paths that every stack gives."""
    for _ in range(2):
        assert list(kp.layer_paths(build(stack.keras))) == paths


@pytest.mark.parametrize("name", ["conv", "unnamed", "nested", "composite"])
def test_paths_and_plan_survive_saving(stack, tmp_path, name):
    """A reloaded model has the paths and the plan that it was saved with, under another global policy too."""
    build, paths = NAMED[name]
    with kp.precision("mixed_bfloat16"):
        model = build(stack.keras)
    model.save(tmp_path / "model.keras")
    reloaded = stack.keras.models.load_model(tmp_path / "model.keras")
    assert list(kp.layer_paths(reloaded)) == paths
    assert kp.plan_of(reloaded) == kp.plan_of(model) == kp.PrecisionPlan.training("mixed_bfloat16")


def test_paths_of_an_unbuilt_model(stack):
    """A sequential model without an input shape has its paths already."""
    layers = stack.keras.layers
    model = stack.keras.Sequential(
        [layers.Dense(4), layers.Dropout(0.5), layers.Dense(2, name="head"), layers.Dense(2)]
    )
    unbuilt = list(kp.layer_paths(model))
    model.build((None, 3))
    assert unbuilt == list(kp.layer_paths(model)) == ["dense", "dropout", "head", "dense_1"]


def test_paths_lead_to_the_layers(stack):
    """The values of layer_paths are the model's own layers."""
    model = nets.nested(stack.keras)
    assert kp.layer_paths(model)["head"] is model.get_layer("head")
    assert kp.layer_paths(model)["block/core/core_dense"] is model.get_layer("block").get_layer("core").layers[-1]


def test_names_given_by_hand_are_not_taken(stack):
    """A layer that Keras numbered never takes the path of one that a person named."""
    layers = stack.keras.layers
    chosen = layers.SpatialDropout2D(0.1, name="dropout")
    model = stack.keras.Sequential([layers.Input((4, 4, 1)), chosen, layers.Dropout(0.1), layers.Dropout(0.2)])
    assert list(kp.layer_paths(model)) == ["dropout", "dropout_1", "dropout_2"]
    assert kp.layer_paths(model)["dropout"] is chosen


def test_plan_names_the_layers_that_differ(stack):
    """The plan's default is the policy of most layers, whatever the model's own policy is."""
    layers = stack.keras.layers
    narrow = [layers.Dense(4, dtype="mixed_float16", name=name) for name in "abc"]
    model = stack.keras.Sequential([layers.Input((3,)), *narrow, layers.Dense(2, dtype="float32", name="head")])
    assert kp.plan_of(model) == kp.PrecisionPlan.training("mixed_float16", layers={"head": "float32"})


def test_plain_float16_has_no_plan(stack):
    """A policy that no plan carries is named, with the one that was probably meant."""
    model = stack.keras.Sequential([stack.keras.layers.Dense(2, dtype="float16", name="half")])
    with pytest.raises(PlanError, match="'half' with 'float16'. Use 'mixed_float16'"):
        kp.plan_of(model)


@pytest.mark.parametrize("thing", [object(), np.ones(3), "model.keras"])
def test_things_that_are_no_model(thing):
    """What is no Keras model is named by its type."""
    with pytest.raises(ModelError, match="Expected a Keras model. Received: an object of type"):
        kp.layer_paths(thing)


def test_a_layer_is_no_model(stack):
    """A single layer has no paths."""
    with pytest.raises(ModelError, match="Received: a layer of type Dense"):
        kp.layer_paths(stack.keras.layers.Dense(2))


def test_inputs_keep_the_order_of_the_model(stack):
    """Inputs come in the model's order, with the batch axis left out."""
    inputs = adapter_of(stack.keras.Sequential()).inputs(nets.two_inputs(stack.keras))
    assert [(model_input.name, model_input.shape, model_input.dtype) for model_input in inputs] == [
        ("z_image", (12, 12, 1), "float32"),
        ("a_table", (4,), "float32"),
    ]


def test_names_of_inputs_can_be_arguments(stack):
    """Names that are taken, or differ in case alone, are changed for files, and known in data as they are."""
    names = ["class", "output_0", "b", "B", "left right", "left_right"]
    values = [stack.keras.layers.Input((2,), name=name) for name in names]
    model = stack.keras.Model(values, stack.keras.layers.Concatenate()(values))
    inputs = adapter_of(model).inputs(model)
    assert [entry.name for entry in inputs] == [
        "input_class",
        "input_output_0",
        "b",
        "B_1",
        "left_right",
        "left_right_1",
    ]
    assert [entry.aliases[0] for entry in inputs] == names


def test_inputs_of_models_that_have_none(stack):
    """Subclassed and unbuilt models are refused with a remedy."""
    adapter = adapter_of(stack.keras.Sequential())
    with pytest.raises(ModelError, match=r"Received: the subclassed model 'written'.*Wrap it"):
        adapter.inputs(nets.subclassed(stack.keras))
    with pytest.raises(ModelError, match=r"Expected a built model.*model.build"):
        adapter.inputs(stack.keras.Sequential([stack.keras.layers.Dense(2)]))


@pytest.mark.parametrize(
    ("name", "policy"),
    # No attention in float16: JAX has none on a CPU.
    [("conv", "mixed_float16"), ("nested", "mixed_float16"), ("composite", "mixed_bfloat16")],
)
def test_float32_copy_computes_the_same_in_float32(stack, rng, name, policy):
    """A copy in float32 has the weights of the model, which keeps its policies."""
    with kp.precision(policy):
        model = NAMED[name][0](stack.keras)
    adapter = adapter_of(model)
    copy = in_float32(adapter, model)
    assert kp.plan_of(model).default == policy
    assert all(adapter.policy_name(layer) == "float32" for layer in adapter.walk(copy))
    x = rng.uniform(size=(4, *adapter.inputs(model)[0].shape)).astype("float32")
    np.testing.assert_allclose(adapter.predict(copy, x, 4), adapter.predict(model, x, 4), atol=0.05)
    for before, after in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_float32_model_is_not_copied(stack):
    """There is nothing to do for a model in float32."""
    model = nets.mlp(stack.keras)
    assert in_float32(adapter_of(model), model) is model


def test_calls_are_watched_and_then_no_more(stack, rng):
    """All calls of layers are seen, with unchanged outputs; afterwards the class is restored."""
    model = nets.mlp(stack.keras)
    adapter = adapter_of(model)
    original = stack.keras.layers.Layer.__call__
    seen = []

    def watch(layer, proceed):
        seen.append(layer.name)
        return proceed()

    with adapter.watching_calls(watch):
        model(rng.normal(size=(2, 8)).astype("float32"))
    assert [name for name in seen if name != "mlp"] == ["hidden", "head"]
    assert stack.keras.layers.Layer.__call__ is original


class Recorder(Callback):
    """Records which hooks ran."""

    def __init__(self):
        super().__init__()
        self.hooks = []

    def on_train_begin(self, logs=None):
        self.hooks.append("train")

    def on_epoch_end(self, epoch, logs=None):
        self.hooks.append(("epoch", epoch, sorted(logs)))

    def on_train_batch_end(self, batch, logs=None):
        self.hooks.append(("batch", batch))

    def on_test_begin(self, logs=None):
        self.hooks.append("test")


def test_our_callback_is_accepted_by_fit(stack, rng):
    """fit, evaluate and predict run the hooks of a callback that imports no Keras."""
    model = nets.mlp(stack.keras)
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = nets.classes(rng, 20)
    recorder = Recorder()
    model.fit(x, y, batch_size=8, validation_data=(x, y), verbose=0, callbacks=[recorder])
    batches = [("batch", number) for number in range(3)]
    assert recorder.hooks == ["train", *batches, "test", ("epoch", 0, ["loss", "val_loss"])]
    model.evaluate(x, y, verbose=0, callbacks=[recorder])
    model.predict(x, verbose=0, callbacks=[recorder])


def test_environment_names_the_backend(stack):
    """The environment of a model says what computes, and on what."""
    environment = adapter_of(stack.keras.Sequential()).compute.environment()
    assert environment.backend == ("tensorflow" if stack.name == "tf_keras" else stack.name)
    assert environment.device


def test_policies_of_a_map_are_resolved(stack):
    """A layer under a DTypePolicyMap is in the policy that the map gives it."""
    if stack.name == "tf_keras":
        pytest.skip("tf_keras has no policy maps")
    keras = stack.keras
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="mixed_float16")
    policies["head"] = keras.dtype_policies.DTypePolicy("float32")
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(4, dtype=policies, name="body"),
            keras.layers.Dense(2, dtype=policies, name="head"),
        ],
        name="mapped",
    )
    head = model.get_layer("head").path
    policies[head] = keras.dtype_policies.DTypePolicy("float32")
    assert kp.plan_of(model) == kp.PrecisionPlan.training("mixed_float16", layers={"head": "float32"})


def test_a_backend_that_cannot_train_is_refused():
    """Keras has one for inference and one of NumPy."""
    with pytest.raises(NotImplementedError, match="tensorflow, jax, torch. Received: 'numpy', which cannot train"):
        get_compute("numpy")
