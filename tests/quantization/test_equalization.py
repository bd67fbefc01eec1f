"""Cross-layer equalization: the same answers in float, a more even reach, and pairs that must stay as they are."""

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters.model_view import ModelView
from keras_precision.core.errors import InputError
from keras_precision.quantization.equalization import equalize_layers, layer_pairs
from keras_precision.quantization.float_model import float_file
from keras_precision.runtimes.card import card
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer
from keras_precision.runtimes.tflite.in_memory import predict_in_memory


@pytest.fixture(scope="module")
def keras():
    """Keras, of which these tests need one stack alone."""
    import keras

    return keras


@pytest.fixture(scope="module")
def uneven(keras):
    """A net whose depthwise layer has a channel with weights 100 times those of the others, and images."""
    keras.utils.set_random_seed(4)
    layers = keras.layers
    image = keras.Input((12, 12, 1), name="image")
    x = layers.Conv2D(8, 3, activation="relu", bias_initializer="glorot_uniform", name="stem")(image)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.Conv2D(8, 1, activation="relu", bias_initializer="random_normal", name="pointwise")(layers.ReLU()(x))
    x = layers.Conv2D(8, 3, padding="same", name="body")(layers.ZeroPadding2D(1)(layers.MaxPooling2D(2)(x)))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, layers.Dense(3, name="head")(x), name="uneven")
    factors = np.ones(16, np.float32)
    factors[5] = 100
    depthwise, pointwise = model.get_layer("depthwise"), model.get_layer("pointwise")
    depthwise.kernel.assign(depthwise.kernel.numpy() * factors.reshape(8, 2))
    pointwise.kernel.assign(pointwise.kernel.numpy() / factors[:, np.newaxis])
    model.get_layer("head").kernel.assign(16 * model.get_layer("head").kernel.numpy())
    rng = np.random.default_rng(2)
    x = (rng.uniform(size=(96, 12, 12, 1)) * rng.uniform(size=(96, 1, 12, 1))).astype("float32")
    model.get_layer("head").bias.assign(-model.predict(x, verbose=0).mean(axis=0))  # so that each class has its images
    return model, x


@pytest.fixture(scope="module")
def calibration(uneven):
    """What the net's activations look like with scaled channels."""
    return kp.calibrate(*uneven, cross_layer_equalization=True)


def reaches(content):
    """Return, for each pair of a file, the largest magnitude of each channel on either side."""
    graph = Flatbuffer(content)
    for pair in layer_pairs(graph):
        first = np.moveaxis(np.abs(graph.constant(pair.weights)), pair.axis, -1)
        second = np.abs(graph.constant(pair.readers))
        second = second.reshape(-1, pair.channels, second.shape[-1] // pair.channels)
        yield first.reshape(-1, pair.channels).max(axis=0), second.max(axis=(0, 2))


def test_the_float_file_answers_as_before(uneven):
    """To the bit, since channels are scaled by powers of two; no weight of the model changes, and no byte is added."""
    model, x = uneven
    before = [weights.copy() for weights in model.get_weights()]
    plain, made = float_file(ModelView.of(model)), float_file(ModelView.of(model), equalize=True)
    assert made.equalized_pairs == 4
    assert plain.equalized_pairs is None
    assert made.digest == plain.digest
    np.testing.assert_array_equal(
        predict_in_memory(plain.content, {"image": x}, 1)[0], predict_in_memory(made.content, {"image": x}, 1)[0]
    )
    for weights, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, old)
    assert len(made.content) <= len(plain.content)


def test_both_sides_of_a_channel_reach_alike(uneven):
    """Within the factor of two that rounding to powers of two leaves, where before they were 150 and more apart."""
    content = float_file(ModelView.of(uneven[0])).content
    before = [np.abs(np.log2(first / second)).max() for first, second in reaches(content)]
    after = [np.abs(np.log2(first / second)).max() for first, second in reaches(equalize_layers(content).content)]
    assert len(before) == len(after) == 4
    assert max(before) > np.log2(150)
    assert max(after) <= 1


def left_alone(keras):
    """Yield nets without a pair, and why."""
    layers = keras.layers
    image = keras.Input((6, 4, 4), name="image")

    def conv(**options):
        return layers.Conv2D(4, 3, padding="same", **options)

    yield "clipped at six", keras.Model(image, conv()(layers.ReLU(6.0)(conv()(image))))
    yield "no ReLU", keras.Model(image, conv()(conv(activation="tanh")(image)))
    x = conv()(image)
    yield "two consumers", keras.Model(image, layers.Add()([x, conv()(x)]))
    yield "an answer", keras.Model(image, [x, conv()(x)])
    yield "flattened", keras.Model(image, layers.Dense(2)(layers.Flatten()(conv()(image))))
    folded = layers.Reshape((6, 2, 8))(conv()(image))
    yield "folded into more channels", keras.Model(image, layers.DepthwiseConv2D(2)(folded))
    yield "a mean over channels", keras.Model(image, layers.Dense(2)(keras.ops.mean(conv()(image), axis=(1, 3))))
    yield "groups", keras.Model(image, conv(groups=2)(conv()(image)))
    shared = conv()
    yield "one layer twice", keras.Model(image, shared(shared(image)))
    yield "a product in between", keras.Model(image, conv()(keras.ops.square(conv()(image))))


def test_other_pairs_are_left_alone(keras):
    """A file without a channel that may be scaled is returned as it is."""
    seen = []
    for reason, model in left_alone(keras):
        content = float_file(ModelView.of(model)).content
        assert equalize_layers(content) == (content, 0), reason
        seen.append(reason)
    assert len(seen) == 10


def test_dead_channels_are_left_alone(keras, rng):
    """A channel whose weights are zero on one side, and one that is all but dead, do not blow others up."""
    features = keras.Input((4,), name="features")
    first, second = keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2)
    model = keras.Model(features, second(first(features)))
    one, other = rng.normal(size=(4, 4)).astype("float32"), rng.normal(size=(4, 2)).astype("float32")
    one[:, 0], other[1], one[:, 2] = 0, 0, 1e-30
    first.set_weights([one, np.array([1, 2, 3, 4], "float32")])
    second.set_weights([other, np.zeros(2, "float32")])
    made = Flatbuffer(float_file(ModelView.of(model), equalize=True).content)
    (pair,) = layer_pairs(made)
    bias = made.constant(pair.bias)
    np.testing.assert_array_equal(bias[:2], [1, 2])
    assert bias[2] == 3 * 2**8


def test_the_answers_of_a_net_that_needs_it_are_nearer(uneven, calibration, tmp_path):
    """Where one channel takes the range of a tensor, the int8 file with the option agrees at least as often, and better."""
    model, x = uneven
    expected = model.predict(x, verbose=0)
    agreement, off = {}, {}
    for wanted, data in ((False, x), (True, calibration)):
        kp.export_tflite(
            model,
            tmp_path / "m.tflite",
            "int8",
            data,
            io="float32",
            calibration="minmax",
            cross_layer_equalization=wanted,
        )
        got = kp.edge.predict(tmp_path / "m.tflite", x)
        agreement[wanted] = np.mean(got.argmax(axis=1) == expected.argmax(axis=1))
        off[wanted] = np.abs(got - expected).mean()
    assert agreement[True] >= agreement[False]
    assert off[True] < 0.5 * off[False]


@pytest.mark.parametrize("plan", ["int8", "int8_dynamic"])
def test_the_file_tells_of_it(uneven, tmp_path, plan):
    """Result and card count the pairs, layers are told apart as before, and without the option neither has a word of it."""
    model, x = uneven
    given = x if plan == "int8" else None
    result = kp.export_tflite(model, tmp_path / "with.tflite", plan, given, cross_layer_equalization=True)
    assert result.value("equalized_pairs") == card(tmp_path / "with.tflite").value("equalized_pairs") == 4
    bare = kp.export_tflite(model, tmp_path / "without.tflite", plan, given)
    assert bare.select("equalized_pairs") == ()
    assert result.select("layer_operators") == bare.select("layer_operators")
    assert result.plan == bare.plan == kp.PrecisionPlan.deployment(plan)


def test_a_calibration_brings_it_along(uneven, calibration, tmp_path):
    """Saved and loaded, it serves any plan, with the option or without a word of it."""
    model, _ = uneven
    loaded = kp.Calibration.load(calibration.save(tmp_path / "net.calibration"))
    plan = kp.PrecisionPlan.deployment("int8", layers={"pointwise": "int4", "head": "float32"})
    for asked in ({}, {"cross_layer_equalization": True}):
        result = kp.export_tflite(model, tmp_path / "m.tflite", plan, loaded, **asked)
        assert result.value("equalized_pairs") == 4
        assert result.value("foreign_ranges") == 0
        assert result.plan == plan


def test_a_report_of_layers_compares_scaled_channels_with_scaled_channels(uneven, calibration, tmp_path):
    """The float run beside the file has the file's weights, so that no layer seems to be off."""
    model, x = uneven
    kp.export_tflite(model, tmp_path / "m.tflite", "int8", calibration)
    report = kp.quantization_report(model, tmp_path / "m.tflite", x)
    assert min(row.value for row in report.select("snr_db")) > 15


def test_a_drop_is_explained_by_files_that_were_made_alike(uneven, calibration, tmp_path):
    """Given samples, the layers' files are equalized as the file is; a calibration of the other kind is refused."""
    model, x = uneven
    y = model.predict(x, verbose=0).argmax(axis=1)
    kp.export_tflite(model, tmp_path / "m.tflite", "int8", calibration)
    by_data, by_calibration = (
        [row for row in kp.explain_drop(model, tmp_path / "m.tflite", x, y, data) if row.metric != "latency_ratio"]
        for data in (x, calibration)
    )
    assert by_data == by_calibration
    with pytest.raises(InputError, match=r"cross_layer_equalization=True, as in the export.*of the other kind"):
        kp.explain_drop(model, tmp_path / "m.tflite", x, y, kp.calibrate(model, x))


def test_a_search_predicts_the_size_of_the_file(uneven, calibration, tmp_path):
    """What the card tells of the pairs is in the size that a search holds against its budget."""
    model, x = uneven
    gaps = []
    for measured in (kp.calibrate(model, x), calibration):
        found = kp.sensitivity(model, measured, ("int8", "int4"), validation_data=x)
        written = kp.export_tflite(model, tmp_path / "model.tflite", "int8", measured, engine="aeq")
        gaps.append(found.value("size_bytes", "all in int8") - written.value("size_bytes"))
    assert gaps[1] >= gaps[0] - 16  # what a table is aligned to


def test_other_toolchains_refuse_ranges_of_scaled_channels(uneven, calibration, tmp_path):
    """An .onnx file is made from the model's own weights."""
    pytest.importorskip("tf2onnx", reason='pip install "keras-precision[onnx]"')
    with pytest.raises(InputError, match=r"without cross_layer_equalization, which only TensorFlow Lite files support"):
        kp.export_onnx(uneven[0], tmp_path / "m.onnx", "int8", calibration)
    assert not list(tmp_path.iterdir())


def test_what_it_does_not_go_with_is_refused(uneven, calibration, tmp_path, monkeypatch):
    """Before any work: another value, floats alone, ranges without it, and verbs that have the model's own weights."""
    model, x = uneven
    own = kp.calibrate(model, x)
    monkeypatch.setattr("keras_precision.quantization.float_model.convert_to_float_tflite", None)  # it is not called
    path = tmp_path / "m.tflite"
    for value in ("auto", 1, None):
        with pytest.raises(InputError, match=rf"cross_layer_equalization to be True or False\. Received: {value!r}"):
            kp.export_tflite(model, path, "int8", x, cross_layer_equalization=value)
        with pytest.raises(InputError, match=rf"cross_layer_equalization to be True or False\. Received: {value!r}"):
            kp.calibrate(model, x, cross_layer_equalization=value)
    with pytest.raises(InputError, match=r"a plan with integers.*Received: float16 throughout"):
        kp.export_tflite(model, path, "float16", cross_layer_equalization=True)
    with pytest.raises(
        InputError, match=r"Expected a calibration with cross_layer_equalization.*Received: one without"
    ):
        kp.export_tflite(model, path, "int8", own, cross_layer_equalization=True)
    with pytest.raises(InputError, match=r"without cross_layer_equalization.*Received: one with it"):
        kp.quantize_aware(model, "int8", representative_dataset=calibration)
    assert not list(tmp_path.iterdir())


def test_ranges_that_were_trained_are_not_scaled(keras, tmp_path):
    """A quantization-aware model has ranges for the weights that it has."""
    model = kp.quantize_aware(nets.mlp(keras), "int8")
    with pytest.raises(InputError, match="for a quantization-aware model, whose ranges were trained"):
        kp.export_tflite(model, tmp_path / "m.tflite", cross_layer_equalization=True)
