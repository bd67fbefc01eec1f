"""apply_plan and PrecisionWrapper: what they say, layers do, after saving and loading, too."""

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters import adapter_of
from keras_precision.core.errors import (
    ModelError,
    PlanKindError,
    PlanNotHonouredError,
    UnknownLayerError,
    UnknownPrecisionError,
)

pytestmark = pytest.mark.every_stack

MODELS = {
    "mlp": (nets.mlp, (8,)),
    "conv": (nets.conv, (12, 12, 1)),
    "unnamed": (nets.unnamed, (6, 6, 2)),
    "nested": (nets.nested, (8,)),
    "composite": (nets.composite, (5, 8)),
}


def alternating(model):
    """A plan in which every other layer is in bfloat16."""
    paths = list(kp.layer_paths(model))
    return kp.PrecisionPlan.training("float32", layers=dict.fromkeys(paths[::2], "mixed_bfloat16"))


def policies(model):
    """Path to the policies of a layer and of all its inner layers."""
    adapter = adapter_of(model)
    return {
        path: {adapter.policy_name(inner) for inner in adapter.walk(layer)}
        for path, layer in kp.layer_paths(model).items()
    }


def expected(plan, model):
    """What policies(model) is under a plan."""
    return {path: {precision} for path, precision in plan.resolve(kp.layer_paths(model)).items()}


def types(model, x):
    """Path to the type of the outputs of the layers for x."""
    adapter, dtypes = adapter_of(model), {}
    paths = {id(layer): path for path, layer in kp.layer_paths(model).items()}

    def watch(layer, proceed):
        output = proceed()
        if id(layer) in paths:
            dtypes[paths[id(layer)]] = str(output.dtype).partition("'")[2].rstrip("'>") or str(output.dtype)
        return output

    with adapter.watching_calls(watch):
        adapter.call(model, [x])
    return {path: name.removeprefix("torch.") for path, name in dtypes.items()}


@pytest.mark.parametrize(("build", "shape"), MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("in_place", [False, True], ids=["copy", "in place"])
def test_the_realised_plan_is_the_plan(stack, rng, tmp_path, build, shape, in_place):
    """Policies and the types that layers compute are those of the plan, fresh and reloaded; a copy leaves the model."""
    model = build(stack.keras)
    x = rng.uniform(size=(4, *shape)).astype("float32")
    before = adapter_of(model).predict(model, x, 4)
    plan = alternating(model)
    planned = kp.apply_plan(model, plan, in_place=in_place)
    assert (planned is model) == in_place
    if not in_place:
        assert set().union(*policies(model).values()) == {"float32"}
    planned.save(tmp_path / "model.keras")
    for candidate in (planned, stack.keras.models.load_model(tmp_path / "model.keras")):
        assert policies(candidate) == expected(plan, model)
        assert kp.plan_of(candidate).resolve(kp.layer_paths(candidate)) == plan.resolve(kp.layer_paths(model))
        expected_types = {
            path: "float32" if kind == "float32" else "bfloat16"
            for path, kind in plan.resolve(kp.layer_paths(model)).items()
        }
        assert types(candidate, x) == expected_types
        np.testing.assert_allclose(adapter_of(candidate).predict(candidate, x, 4), before, atol=0.1)


@pytest.mark.parametrize("in_place", [False, True], ids=["copy", "in place"])
def test_functions_that_were_compiled_are_forgotten(stack, rng, in_place):
    """A model that has answered in float32 answers in the plan afterwards."""
    model = nets.mlp(stack.keras)
    x = rng.uniform(size=(4, 8)).astype("float32")
    before = model.predict(x, verbose=0)
    planned = kp.apply_plan(model, kp.PrecisionPlan.training("mixed_bfloat16"), in_place=in_place)
    after = planned.predict(x, verbose=0)
    assert str(after.dtype) == "bfloat16" or stack.name == "torch"
    assert np.abs(np.asarray(after, "float32") - before).max() > 0
    restored = kp.apply_plan(planned, kp.PrecisionPlan.training("float32"), in_place=in_place)
    np.testing.assert_array_equal(restored.predict(x, verbose=0), before)


def compiled(stack, **settings):
    """A model with an optimizer and a metric of its own settings."""
    model = nets.mlp(stack.keras)
    optimizer = stack.keras.optimizers.Adam(0.0123, beta_1=0.7)
    metrics = [stack.keras.metrics.SparseCategoricalAccuracy(name="hits"), "accuracy"]
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=metrics, **settings)
    return model


@pytest.mark.parametrize("in_place", [False, True], ids=["copy", "in place"])
def test_a_compiled_model_stays_compiled_and_gets_loss_scaling(stack, rng, in_place):
    """Settings of the optimizer are preserved, float16 is scaled, and what trained before trains on."""
    model = compiled(stack)
    x, y = nets.classes(rng)
    model.fit(x, y, verbose=0)
    plan = kp.PrecisionPlan.training("float32", layers={"hidden": "mixed_float16"})
    planned = kp.apply_plan(model, plan, in_place=in_place)
    adapter = adapter_of(planned)
    assert adapter.is_loss_scaling(planned.optimizer)
    assert not in_place or planned is model
    inner = planned.optimizer.inner_optimizer
    assert float(np.asarray(inner.get_config()["learning_rate"])) == pytest.approx(0.0123)
    assert inner.beta_1 == pytest.approx(0.7)
    profiler = kp.PrecisionProfiler(verbose=0)
    history = planned.fit(x, y, epochs=3, verbose=0, callbacks=[profiler]).history
    assert {"loss", "hits", "accuracy"} <= set(history)
    assert history["loss"][-1] < history["loss"][0]
    assert profiler.result.plan == kp.plan_of(planned)
    assert profiler.result.value("loss_scale") == 2.0**15
    assert [
        finding.code for finding in profiler.findings if finding.code != "input-bound"
    ] == []  # as a machine in use may be
    back = kp.apply_plan(planned, kp.PrecisionPlan.training("mixed_bfloat16"), in_place=in_place)
    assert not adapter.is_loss_scaling(back.optimizer)
    assert "hits" in back.fit(x, y, verbose=0).history


def test_in_place_keeps_the_state_of_the_optimizer(stack, rng):
    """Iterations and moments go on where they were."""
    model = compiled(stack)
    x, y = nets.classes(rng)
    model.fit(x, y, batch_size=32, verbose=0)
    optimizer = model.optimizer
    kp.apply_plan(model, kp.PrecisionPlan.training("mixed_float16"), in_place=True)
    assert model.optimizer.inner_optimizer is optimizer
    model.fit(x, y, batch_size=32, verbose=0)
    iterations = optimizer.iterations
    assert int(iterations.numpy() if stack.name == "tf_keras" else stack.keras.ops.convert_to_numpy(iterations)) == 6


def test_loss_scaling_survives_a_reload(stack, tmp_path):
    """A saved model that scales its loss does so when it is loaded under float32."""
    model = compiled(stack)
    planned = kp.apply_plan(model, kp.PrecisionPlan.training("mixed_float16", layers={"head": "float32"}))
    planned.save(tmp_path / "model.keras")
    loaded = stack.keras.models.load_model(tmp_path / "model.keras")
    assert adapter_of(loaded).is_loss_scaling(loaded.optimizer)


def test_subclassed_models_are_changed_in_place(stack, rng):
    """They cannot be copied, which is said; in place they compute in the plan."""
    model = nets.subclassed(stack.keras)
    x = rng.uniform(size=(2, 4)).astype("float32")
    model(x)
    plan = kp.PrecisionPlan.training("mixed_bfloat16", layers={"last": "float32"})
    with pytest.raises(ModelError, match="Received: the subclassed model 'written'.*Pass in_place=True"):
        kp.apply_plan(model, plan)
    kp.apply_plan(model, plan, in_place=True)
    assert types(model, x) == {"first": "bfloat16", "last": "float32"}


def with_block(stack, *, hands_on):
    """A model with a layer of the user's own, which hands its policy on to its parts, or does not."""
    layers = stack.keras.layers

    class Block(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = layers.Dense(4, name="inner", dtype=self.dtype_policy if hands_on else None)

        def build(self, shape):
            self.inner.build(shape)
            super().build(shape)

        def call(self, inputs):
            return self.inner(inputs)

    return stack.keras.Sequential([layers.Input((4,)), Block(name="block"), layers.Dense(2, name="head")])


def test_layers_inside_a_user_s_own_layers(stack, rng):
    """They get the precision where it lasts; where it would be lost when saved, that is an error that names them."""
    plan = kp.PrecisionPlan.training("float32", layers={"block": "mixed_bfloat16"})
    careful = kp.apply_plan(with_block(stack, hands_on=True), plan)
    assert policies(careful) == {"block": {"mixed_bfloat16"}, "head": {"float32"}}
    careless = with_block(stack, hands_on=False)
    with pytest.raises(PlanNotHonouredError, match="Received: 'block/inner' in float32: it loses it when"):
        kp.apply_plan(careless, plan)
    kp.apply_plan(careless, plan, in_place=True)
    assert policies(careless) == policies(careful)
    x = rng.uniform(size=(2, 4)).astype("float32")
    assert types(careless, x) == {"block": "bfloat16", "head": "float32"}


def test_the_name_of_a_policy_is_a_plan(stack):
    """For all layers, as a schedule of precisions and the start of a suggested plan take it."""
    assert kp.plan_of(kp.apply_plan(nets.mlp(stack.keras), "mixed_bfloat16")).default == "mixed_bfloat16"


def test_plans_that_do_not_fit(stack):
    """Wrong kinds, unknown layers and things that are no model change nothing."""
    model = nets.mlp(stack.keras)
    with pytest.raises(PlanKindError, match="Expected a training plan. Received: a deployment plan"):
        kp.apply_plan(model, kp.PrecisionPlan.deployment("int8"), in_place=True)
    with pytest.raises(UnknownLayerError, match="Received: a plan that names 'hiden'.*Did you mean 'hidden'"):
        kp.apply_plan(model, kp.PrecisionPlan.training(layers={"hiden": "mixed_float16"}), in_place=True)
    with pytest.raises(ModelError, match="Expected a Keras model"):
        kp.apply_plan([], kp.PrecisionPlan.training())
    for plan in ("int8", {"hidden": "float32"}, None):
        with pytest.raises(UnknownPrecisionError, match="Expected the plan to be one of the training precisions"):
            kp.apply_plan(model, plan, in_place=True)
    assert set().union(*policies(model).values()) == {"float32"}


def test_models_without_a_configuration(stack):
    """A layer that cannot be rebuilt from its configuration is reported before anything is changed."""

    class Odd(stack.keras.layers.Layer):
        def __init__(self, factor, offset):
            super().__init__(name="odd")
            self.factor = factor + offset

        def call(self, inputs):
            return inputs * self.factor

        def get_config(self):
            return {"name": "odd"}

    model = stack.keras.Sequential([stack.keras.layers.Input((2,)), Odd(2, 3)])
    with pytest.raises(ModelError, match="Expected a model that can be rebuilt from its configuration"):
        kp.apply_plan(model, kp.PrecisionPlan.training("mixed_bfloat16"))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_wrapped_layers_keep_their_precision_under_any_policy(stack, rng, tmp_path, policy):
    """The wrapped layer computes in float32, and what it hands on has the type that came in; saved and loaded, too."""
    keras = stack.keras
    with kp.precision(policy):
        model = keras.Sequential(
            [
                keras.layers.Input((8,)),
                keras.layers.Dense(4, name="body"),
                kp.PrecisionWrapper(keras.layers.Dense(3, name="exact"), "float32", name="kept"),
            ]
        )
    x = rng.uniform(size=(2, 8)).astype("float32")
    narrow = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}[policy]
    model.save(tmp_path / "model.keras")
    for candidate in (model, keras.models.load_model(tmp_path / "model.keras")):
        assert types(candidate, x) == {"body": narrow, "kept": narrow}
        kept = kp.layer_paths(candidate)["kept"]
        assert kept.layer.compute_dtype == "float32"
        assert len(candidate.get_weights()) == 4
        np.testing.assert_array_equal(candidate.get_weights()[2], model.get_weights()[2])
    assert kp.plan_of(model).precision_of("kept") == "float32"


def test_a_wrapper_passes_masks_and_training_on(stack, rng):
    """Padding is ignored, dropout drops in training alone, through a wrapper as without one."""
    layers = stack.keras.layers
    words = np.array([[3, 4, 0, 0], [5, 0, 0, 0]])
    outputs = []
    for wrap in (lambda layer: layer, lambda layer: kp.PrecisionWrapper(layer, "float32")):
        stack.keras.utils.set_random_seed(1)
        model = stack.keras.Sequential(
            [
                layers.Input((4,), dtype="int32"),
                wrap(layers.Embedding(8, 4, mask_zero=True)),
                wrap(layers.LSTM(3, return_sequences=True)),
                wrap(layers.GlobalAveragePooling1D()),
            ]
        )
        outputs.append(model.predict(words, verbose=0))
        assert getattr(model.layers[-1], "layer", model.layers[-1]).supports_masking
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)
    drop = kp.PrecisionWrapper(layers.Dropout(0.5))
    ones = np.ones((4, 100), "float32")
    assert np.asarray(drop(ones, training=True) == 0).any()
    assert not np.asarray(drop(ones, training=False) == 0).any()


def test_a_wrapped_composite_layer(stack, rng):
    """All inner layers of attention compute in the wrapper's precision."""
    with kp.precision("mixed_bfloat16"):
        attention = kp.PrecisionWrapper(stack.keras.layers.MultiHeadAttention(2, 4), "float32")
        series = stack.keras.layers.Input((5, 8))
        x = stack.keras.layers.Dense(8)(series)
        model = stack.keras.Model(series, attention(x, value=x))
    adapter = adapter_of(model)
    assert {adapter.policy_name(inner) for inner in adapter.walk(attention)} == {"float32"}
    assert "bfloat16" in str(adapter.call(model, [rng.uniform(size=(2, 5, 8)).astype("float32")])[0].dtype)


def test_wrappers_refuse_what_they_cannot_wrap(stack):
    """Unknown precisions and things that are no layer are refused."""
    with pytest.raises(UnknownPrecisionError, match="Received: 'float16'"):
        kp.PrecisionWrapper(stack.keras.layers.Dense(1), "float16")
    with pytest.raises(ModelError, match="Expected a Keras model. Received: an object of type builtins.str"):
        kp.PrecisionWrapper("dense")


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize` method:UserWarning")
def test_a_model_that_keras_has_quantized_is_refused():
    """Its layers have policies of integers."""
    import keras

    model = nets.mlp(keras)
    model.quantize("int8")
    with pytest.raises(ModelError, match="in float. Received: 'hidden' with the policy 'int8_from_float32'"):
        kp.apply_plan(model, kp.PrecisionPlan.training("mixed_bfloat16"))
