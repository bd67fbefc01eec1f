"""diagnose: planted faults are reported in the layer where they are, their healthy twins give no error."""

import faulty
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import DataError, InputError, ModelError


def codes(findings, *severities):
    """Code and subject of the findings of these severities."""
    return {(finding.code, finding.subject) for finding in findings if finding.severity in severities}


@pytest.mark.every_stack
def test_the_future_of_a_float32_run_in_float16(stack, rng):
    """Data in float32 tell which layer would overflow in float16; the plan that follows keeps it in float32."""
    model = faulty.net(stack.keras, stack.keras.layers.Rescaling(1e6, name="amplify"))
    findings = kp.diagnose(model, (rng.normal(size=(16, 8)).astype("float32"), np.zeros((16, 1), "float32")))
    assert ("float16-overflow-ahead", "amplify") in codes(findings, "warning")
    plan = kp.suggest_plan(findings)
    assert plan.default == "mixed_float16"
    assert plan.precision_of("amplify") == "float32"
    assert "1e+06" in plan.reasons["amplify"] or "values up to" in plan.reasons["amplify"]
    planned = kp.apply_plan(
        model, kp.PrecisionPlan.training("mixed_float16", layers={"amplify": "float32", "last": "float32"})
    )
    assert ("float16-overflow", "amplify") not in codes(
        kp.diagnose(planned, rng.normal(size=(16, 8)).astype("float32")), "error"
    )


@pytest.mark.every_stack
def test_a_layer_that_breaks_in_half_precision_only(stack, rng):
    """exp overflows in float16 where it does not in float32: named as an error there, and not here."""
    x, y = rng.normal(size=(16, 8)).astype("float32") * 8, np.ones((16, 1), "float32")

    def findings_of(policy):
        stack.keras.utils.set_random_seed(1)
        with kp.precision(policy):
            model = faulty.net(stack.keras, faulty.boom(stack.keras, name="boom"))
        return kp.diagnose(model, (x, y))

    assert ("non-finite", "boom") in codes(findings_of("mixed_float16"), "error")
    assert not codes(findings_of("float32"), "error")


@pytest.mark.every_stack
@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_saturated_units_are_found_and_others_are_not(stack, rng, activation):
    """A layer whose weights drive it to the ends of its activation is named; one that is moved a little is not."""
    layers = stack.keras.layers
    x, y = rng.normal(size=(64, 8)).astype("float32"), np.zeros((64, 1), "float32")
    findings = {}
    for gain in (0.1, 1000.0):
        start = stack.keras.initializers.RandomNormal(stddev=gain, seed=3)
        model = faulty.net(stack.keras, layers.Dense(8, activation, kernel_initializer=start, name="bounded"))
        findings[gain] = codes(kp.diagnose(model, (x, y)), "warning")
    assert ("saturated-units", "bounded") in findings[1000.0]
    assert ("saturated-units", "bounded") not in findings[0.1]


def test_a_sure_output_is_not_saturated(rng):
    """A sigmoid that answers is left alone: being sure is its task."""
    import keras

    start = keras.initializers.RandomNormal(stddev=1000.0, seed=3)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, "sigmoid", kernel_initializer=start)])
    findings = kp.diagnose(model, rng.normal(size=(64, 8)).astype("float32"))
    assert "saturated-units" not in {finding.code for finding in findings}


@pytest.mark.parametrize(("dtype", "expected"), [("float16", True), (None, False)])
def test_a_loss_in_half_precision(rng, dtype, expected):
    """The loss's own type decides, whatever the layers compute in."""
    import keras

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile("sgd", keras.losses.MeanSquaredError(dtype=dtype))
    findings = kp.diagnose(model, (rng.normal(size=(16, 8)).astype("float32"), np.zeros((16, 1), "float32")))
    assert (("half-loss", "loss") in codes(findings, "error")) is expected


def test_data_in_every_form(rng):
    """Arrays, x alone, datasets and generators give the same; samples beyond the first 256 are not looked at."""
    import keras
    import tensorflow as tf

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    model.compile("sgd", "mse")
    x, y = np.full((300, 4), 1e7, "float32"), np.zeros((300, 2), "float32")
    forms = [x, (x, y), tf.data.Dataset.from_tensor_slices((x, y)).batch(8), iter([(x[:8], y[:8])]), [x]]
    for form in forms:
        assert ("float16-overflow-ahead", "head") in codes(kp.diagnose(model, form), "warning")


def test_what_layers_say_of_themselves():
    """Plain float16, an output in half precision and a softmax there are reported without data."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(4, dtype="float16", name="plain"),
            layers.Dense(2, "softmax", dtype="mixed_float16", name="head"),
        ]
    )
    assert codes(kp.diagnose(model), "error") == {("plain-float16", "plain")}
    assert ("half-softmax", "head") in codes(kp.diagnose(model), "warning")
    logits = keras.Sequential([keras.Input((4,)), layers.Dense(2, dtype="mixed_bfloat16", name="logits")])
    assert ("half-output", "logits") in codes(kp.diagnose(logits), "warning")


@pytest.mark.parametrize(
    ("policy", "gain", "first", "offset", "expected"),
    [
        ("mixed_float16", 100.0, None, 0.0, ("error", "its outputs exceed")),
        ("mixed_float16", 0.1, None, 0.0, None),  # float16 changes nothing
        ("mixed_bfloat16", 100.0, None, 0.0, None),  # which has the range of float32
        ("mixed_float16", 100.0, 1 / 255, 0.0, None),
        ("mixed_float16", 1e-4, None, 1e6, ("error", "its outputs exceed")),  # infinite inputs
        ("mixed_bfloat16", 0.1, None, 3e4, ("warning", "rounding them is an error of")),
    ],
)
def test_inputs_that_are_too_large_for_half_precision(policy, gain, first, offset, expected, rng):
    """They are named where the first layer overflows because of them, or where rounding loses what distinguishes them."""
    import keras

    layers = keras.layers
    x = rng.integers(0, 256, (8, 16)).astype("float32") / (3 if offset else 1) + np.float32(offset)
    with kp.precision(policy):
        model = keras.Sequential(
            [
                keras.Input((16,)),
                *([] if first is None else [layers.Rescaling(first)]),
                layers.Dense(4, kernel_initializer=keras.initializers.Constant(gain), name="stem"),
                layers.Dense(1, dtype="float32", name="head"),
            ]
        )
    findings = [finding for finding in kp.diagnose(model, x) if finding.subject == "stem"]
    assert [(finding.code, finding.severity) for finding in findings] == (
        [("input-scale", expected[0])] if expected else []
    )
    assert not expected or expected[1] in findings[0].message
    assert not expected or ("pixels" in findings[0].message) == (offset == 0)


@pytest.mark.parametrize(
    ("subject", "data", "error", "match"),
    [
        ([], None, InputError, "Received: \\[\\]"),
        ([1], None, InputError, "Received: \\['int'\\]"),
        (kp.Result("run"), np.ones(3), InputError, "Expected data only with a model"),
        ("model", None, ModelError, "Expected a Keras model"),
    ],
)
def test_what_is_no_subject(subject, data, error, match):
    """Anything but a model or results is refused."""
    with pytest.raises(error, match=match):
        kp.diagnose(subject, data)


@pytest.mark.parametrize("data", ["x.npy", np.zeros((0, 8), "float32"), iter([]), np.zeros((4, 3), "float32")])
def test_data_that_are_none(data):
    """Names of files, empty arrays, exhausted iterators and arrays of another shape are refused."""
    import keras

    with pytest.raises(DataError, match="Expected"):
        kp.diagnose(faulty.net(keras), data)


def test_a_model_without_weights_yet_is_refused(rng):
    """Its input shape is not known."""
    import keras

    model = keras.Sequential([keras.layers.Dense(1)], name="open")
    model.compile("sgd", "mse")
    with pytest.raises(ModelError, match="Expected a built model. Received: 'open'"):
        kp.diagnose(model, (rng.normal(size=(4, 8)).astype("float32"), np.zeros(4, "float32")))


@pytest.mark.every_stack
def test_models_are_examined_at_the_sizes_of_the_data(stack, rng):
    """One whose weights need a certain length, and one that takes batches of a certain size, as its state needs them."""
    layers = stack.keras.layers

    class Places(layers.Layer):
        def build(self, shape):
            self.places = self.add_weight(shape=(10, 4), name="places")

        def call(self, inputs):
            return inputs + self.places

        def compute_output_shape(self, shape):
            return shape

    words = layers.Input((None,), dtype="int32")
    hidden = layers.GlobalAveragePooling1D()(Places()(layers.Embedding(20, 4)(words)))
    text = stack.keras.Model(words, layers.Dense(2)(hidden))
    assert kp.diagnose(text, rng.integers(0, 20, (8, 10))) == ()
    with pytest.raises(ModelError, match="which fails on inputs of size 16.*input_signature="):
        kp.lint(text)
    assert kp.lint(text, input_signature=np.zeros((1, 10), "int32")) == ()
    size = {"batch_input_shape": (8, 5, 3)} if stack.name == "tf_keras" else {"batch_shape": (8, 5, 3)}
    series = stack.keras.Sequential([layers.InputLayer(**size), layers.LSTM(4, stateful=True), layers.Dense(1)])
    assert kp.diagnose(series, rng.normal(size=(20, 5, 3)).astype("float32")) == ()
    assert kp.lint(series) == ()


def test_a_layer_that_cannot_be_copied_is_examined_as_it_is(rng):
    """Without a copy in float32 there is no comparison with one; the other rules need none."""
    import keras

    class Closure(keras.layers.Layer):
        def __init__(self, function, **options):
            super().__init__(**options)
            self.function = function

        def call(self, inputs):
            return self.function(inputs)

    with kp.precision("mixed_float16"):
        layers = [keras.Input((6,)), Closure(lambda x: 2 * x), keras.layers.Dense(1, name="head")]
        model = keras.Sequential(layers)
    findings = kp.diagnose(model, rng.normal(size=(8, 6)).astype("float32"))
    assert codes(findings, "error", "warning") == {("half-output", "head")}


@pytest.mark.every_stack
@pytest.mark.parametrize("gain", [1.0, 300.0])
def test_overflow_inside_a_layer_is_foreseen(gain, stack, rng):
    """Scores of attention and exponentials of a layer of one's own exceed float16; its outputs in float32 are small."""
    layers, ops = stack.keras.layers, faulty.operations(stack.keras)
    add = getattr(ops, "reduce_sum", None) or ops.sum

    class Sharpen(layers.Layer):
        def call(self, inputs):
            top = ops.exp(gain / 60 * inputs)
            return top / add(top, axis=-1, keepdims=True)

        def compute_output_shape(self, shape):
            return shape

    series = layers.Input((6, 8))
    attention = layers.MultiHeadAttention(2, 16, name="attention")
    # JAX has no attention in float16 on processors, and PyTorch keeps its scores in float32.
    attended = series if stack.name in ("jax", "torch") else attention(series, series)
    pooled = layers.GlobalAveragePooling1D()(
        layers.Activation("relu")(Sharpen(name="sharpen")(layers.Add()([series, attended])))
    )
    model = stack.keras.Model(series, layers.Dense(2, name="head")(pooled))
    if attention.built:
        weights = attention.get_weights()
        attention.set_weights([gain * each if number in (0, 2) else each for number, each in enumerate(weights)])
    findings = kp.diagnose(model, 2 * rng.normal(size=(32, 6, 8)).astype("float32"))
    expected = ["sharpen"] if stack.name in ("jax", "torch") else ["attention", "sharpen"]
    warned = [finding.subject for finding in findings if finding.severity == "warning"]
    assert warned == (expected if gain > 1 else [])
    assert all(
        "In float32 they are at most" in finding.message for finding in findings if finding.severity == "warning"
    )
