"""Copies of a model through its configuration have all of its state: weights, vocabularies, bins and constants."""

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_state import copy_state
from keras_precision._adapters.rebuild import in_float32
from keras_precision.core.errors import ModelError

pytestmark = pytest.mark.every_stack

generator = np.random.default_rng(0)
FEATURES = (generator.normal(size=(64, 3)) * [1, 50, 0.5] + [10, 400, 2]).astype("float32")
SERIES = np.stack([FEATURES[:5], FEATURES[5:10]])
NUMBERS = generator.integers(0, 9, (64, 3))
WORDS = np.array([["red", "two words"], ["blue", "red"], ["a\x85b", "red"]])


def adapted(layer, data):
    """A layer that has seen the data."""
    layer.adapt(data)
    return layer


def chain(keras, *layers, shape=(3,), dtype="float32"):
    """A sequential model."""
    return keras.Sequential([keras.layers.Input(shape, dtype=dtype), *layers])


def one_layer(make, data, *, adapts=True, **options):
    """A builder of a model that begins with a layer, and its data."""

    def build(keras):
        layer = adapted(make(keras.layers), data) if adapts else make(keras.layers)
        embeds = getattr(layer, "output_mode", getattr(layer, "_output_mode", None)) == "int"
        after = keras.layers.Embedding(20, 2) if embeds else keras.layers.Dense(2)
        return chain(keras, layer, after, shape=data.shape[1:], **options)

    return build, data


def inside_others(keras):
    """Adapted layers in a nested model, in a wrapper of ours, and used twice."""
    layers = keras.layers
    values = layers.Input((3,), name="values")
    shared = adapted(layers.Normalization(name="shared"), FEATURES)
    nested = chain(keras, adapted(layers.Normalization(axis=None), FEATURES), layers.Dense(3))
    wrapped = kp.PrecisionWrapper(adapted(layers.Normalization(), FEATURES))
    parts = [shared(values), shared(layers.Rescaling(2.0)(values)), nested(values), wrapped(values)]
    return keras.Model(values, layers.Dense(2)(layers.Concatenate()(parts)))


def over_time(keras):
    """An adapted layer in a composite layer."""
    layer = adapted(keras.layers.Normalization(), FEATURES)
    return chain(keras, keras.layers.TimeDistributed(layer), keras.layers.Dense(2), shape=(5, 3))


MODELS = {
    "normalization": one_layer(lambda layers: layers.Normalization(), FEATURES),
    "given constants": one_layer(
        lambda layers: layers.Normalization(mean=[10.0, 400, 2], variance=[1.0, 2500, 0.2]), FEATURES, adapts=False
    ),
    "inside others": (inside_others, FEATURES),
    "over time": (over_time, SERIES),
    "bins": one_layer(lambda layers: layers.Discretization(num_bins=5), FEATURES),
    "bins, one column each": one_layer(lambda layers: layers.Discretization(num_bins=5, output_mode="count"), FEATURES),
    "integers": one_layer(lambda layers: layers.IntegerLookup(), NUMBERS, dtype="int32"),
    "integers counted": one_layer(lambda layers: layers.IntegerLookup(output_mode="count"), NUMBERS, dtype="int32"),
    "hashes": one_layer(lambda layers: layers.Hashing(7), NUMBERS, adapts=False, dtype="int32"),
    "words": one_layer(lambda layers: layers.StringLookup(), WORDS, dtype="string"),
    "words weighed": one_layer(lambda layers: layers.StringLookup(output_mode="tf_idf"), WORDS, dtype="string"),
    "text": one_layer(lambda layers: layers.TextVectorization(output_sequence_length=4), WORDS[:, :1], dtype="string"),
    "text weighed": one_layer(
        lambda layers: layers.TextVectorization(output_mode="tf_idf"), WORDS[:, :1], dtype="string"
    ),
}


def outputs(model, data):
    """The outputs of a model, called directly."""
    if data.dtype.kind == "U":
        data = __import__("tensorflow").constant(data)
    return adapter_of(model).answers(model, [data])[0]


@pytest.fixture(params=MODELS)
def model_and_data(request, stack):
    """A model with an adapted layer, and its data."""
    build, data = MODELS[request.param]
    if data.dtype.kind == "U" and stack.name in ("jax", "torch"):
        pytest.skip("this backend has no strings")
    return build(stack.keras), data


def test_a_plan_leaves_the_state_of_a_model(model_and_data):
    """A plan of float32 returns the same bits; one of bfloat16 the same numbers, as do its copies in float32."""
    model, data = model_and_data
    expected = outputs(model, data)
    config = str(model.get_config())
    planned = kp.apply_plan(model, kp.PrecisionPlan.training("float32"))
    np.testing.assert_array_equal(outputs(planned, data), expected)
    narrow = kp.apply_plan(model, kp.PrecisionPlan.training("mixed_bfloat16"))
    assert kp.plan_of(narrow).default == "mixed_bfloat16"
    tolerance = 0.05 * np.abs(expected).max()
    np.testing.assert_allclose(outputs(narrow, data), expected, atol=tolerance)
    np.testing.assert_allclose(outputs(in_float32(adapter_of(narrow), narrow), data), expected, atol=tolerance)
    assert str(model.get_config()) == config
    kp.apply_plan(model, kp.PrecisionPlan.training("mixed_bfloat16"), in_place=True)
    np.testing.assert_allclose(outputs(model, data), expected, atol=tolerance)
    kp.apply_plan(model, kp.PrecisionPlan.training("float32"), in_place=True)
    np.testing.assert_allclose(outputs(model, data), expected, atol=0.02 * np.abs(expected).max())


def test_a_vocabulary_that_was_a_file_needs_it_no_more(stack, tmp_path):
    """The copy has the words, also when the file is gone."""
    if stack.name in ("jax", "torch"):
        pytest.skip("this backend has no strings")
    (tmp_path / "words.txt").write_text("red\nblue\n")
    lookup = stack.keras.layers.StringLookup(vocabulary=str(tmp_path / "words.txt"))
    model = chain(stack.keras, lookup, stack.keras.layers.Embedding(9, 2), shape=(2,), dtype="string")
    (tmp_path / "words.txt").unlink()
    planned = kp.apply_plan(model, kp.PrecisionPlan.training("float32"))
    np.testing.assert_array_equal(outputs(planned, WORDS), outputs(model, WORDS))


def shift(keras, *, saves):
    """A layer class of the user's own that is adapted, and saves what it learned, or does not."""

    class Shift(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.offset = np.zeros(3, "float32")

        def adapt(self, data):
            self.offset = data.mean(axis=0)

        def call(self, inputs):
            cast = keras.ops.cast if hasattr(keras, "ops") else __import__("tensorflow").cast
            return inputs - cast(self.offset, inputs.dtype)

        if saves:

            def save_own_variables(self, store):
                store["offset"] = self.offset

            def load_own_variables(self, store):
                self.offset = store["offset"]

    return Shift


def shifted(keras, *, saves):
    """A model of two such layers, of which the second is adapted."""
    kind = shift(keras, saves=saves)
    return chain(keras, kind(name="plain"), adapted(kind(name="shift"), FEATURES), keras.layers.Dense(2, name="head"))


def test_layers_of_the_user_s_own_that_save_their_state_are_copied(stack):
    """The methods with which Keras saves and loads a layer hand the state on; nothing is shared."""
    model = shifted(stack.keras, saves=True)
    expected = outputs(model, FEATURES)
    planned = kp.apply_plan(model, kp.PrecisionPlan.training("float32"))
    model.get_layer("shift").offset[:] = 0
    np.testing.assert_array_equal(outputs(planned, FEATURES), expected)


def test_layers_that_lose_their_state_are_named(stack):
    """A copy that computes something else is refused before it is returned, in every precision and for training."""
    model = shifted(stack.keras, saves=False)
    for policy in ("float32", "mixed_bfloat16"):
        with pytest.raises(
            ModelError, match="Received: 'shift': its copy computes other values, since it has state outside"
        ):
            kp.apply_plan(model, kp.PrecisionPlan.training(policy))
    narrow = kp.apply_plan(model, kp.PrecisionPlan.training("mixed_bfloat16"), in_place=True)
    with pytest.raises(ModelError, match="Received: 'shift': its copy"):
        in_float32(adapter_of(narrow), narrow)


def test_layers_whose_state_cannot_be_read_are_named(stack):
    """What save_own_variables or load_own_variables raises names the layer."""

    class Sealed(stack.keras.layers.Layer):
        def call(self, inputs):
            return inputs

        def load_own_variables(self, store):
            raise ValueError("sealed")

    with pytest.raises(ModelError, match="Expected layers that can be copied.*Received: 'safe': sealed"):
        kp.apply_plan(chain(stack.keras, Sealed(name="safe")), kp.PrecisionPlan.training("float32"))


def picky(keras):
    """A layer class that computes no values, only shapes, until it is ready."""

    class Picky(keras.layers.Layer):
        ready = False

        def call(self, inputs):
            is_symbolic = not hasattr(keras, "ops") and not hasattr(inputs, "numpy")
            if not self.ready and not is_symbolic:
                raise RuntimeError("adapt it first")
            return inputs

        def compute_output_shape(self, shape):
            return shape

    return Picky


def test_layers_that_cannot_compute_in_a_copy_are_named(stack):
    """A copy that fails where the model does not is refused with the layer that fails."""
    layer = picky(stack.keras)(name="checked")
    model = chain(stack.keras, layer)
    layer.ready = True
    with pytest.raises(ModelError, match=r"Received: 'checked': its copy computes other values \(RuntimeError\)"):
        kp.apply_plan(model, kp.PrecisionPlan.training("float32"))


def test_models_that_cannot_be_judged_are_copied(stack):
    """Layers that compute at random, and those that refuse made-up inputs, prevent nothing."""

    class Random(stack.keras.layers.Layer):
        def call(self, inputs):
            return inputs * float(np.random.default_rng().random())

    for kind in (Random, picky(stack.keras)):
        model = chain(stack.keras, kind(), stack.keras.layers.Dense(2))
        assert kp.apply_plan(model, kp.PrecisionPlan.training("float32")).count_params() == 8


def test_a_copy_changes_nothing_in_the_model(stack):
    """The states of recurrent layers and counters of the user's own are as they were, and the copy goes on from them."""

    class Counting(stack.keras.layers.Layer):
        def build(self, shape):
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

        def call(self, inputs):
            self.calls.assign(self.calls + 1.0)
            return inputs

    layers = stack.keras.layers
    series = layers.Input(batch_shape=(2, 5, 3))
    recurrent = layers.LSTM(2, stateful=True)
    model = stack.keras.Model(series, layers.Dense(1)(recurrent(Counting()(series))))
    outputs(model, SERIES)
    before = [np.asarray(state).copy() for state in (*model.get_weights(), *recurrent.states)]
    planned = kp.apply_plan(model, kp.PrecisionPlan.training("float32"))
    after = [np.asarray(state).copy() for state in (*model.get_weights(), *recurrent.states)]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(outputs(planned, SERIES), outputs(model, SERIES))


def test_bit_identical_copies_of_whole_models(stack, rng):
    """A plan of float32 changes no bit of the nets of the tests, frozen inner layers included."""
    for build, shape in ((nets.conv, (12, 12, 1)), (nets.nested, (8,)), (nets.composite, (5, 8))):
        model = build(stack.keras)
        for layer in list(adapter_of(model).walk(model))[-3::2]:
            layer.trainable = False
        x = rng.uniform(size=(4, *shape)).astype("float32")
        planned = kp.apply_plan(model, kp.PrecisionPlan.training("float32"))
        np.testing.assert_array_equal(outputs(planned, x), outputs(model, x))


def test_bins_of_a_file_of_tf_keras(stack, tmp_path):
    """A file has the data of the bins, from which tf_keras itself does not compute them again."""
    build, data = MODELS["bins"]
    model = build(stack.keras)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(kp.load_model(tmp_path / "model.keras"), data), outputs(model, data))


def test_state_goes_to_the_same_layers_alone(stack):
    """A model whose configuration builds other layers than it has would get the state of another layer."""
    layers = stack.keras.layers
    source = chain(stack.keras, layers.Dense(2))
    for target in (chain(stack.keras, layers.Dropout(0.1)), chain(stack.keras, layers.Dense(2), layers.Dense(2))):
        with pytest.raises(ModelError, match="other layers inside after it is rebuilt"):
            copy_state(adapter_of(source), source, target)
