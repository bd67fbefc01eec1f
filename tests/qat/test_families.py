"""What nets of ``keras.applications`` have and small ones rarely do: each in a net of a few layers, for both engines."""

import importlib.util

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import ModelError

every_stack = pytest.mark.every_stack
by_tfmot = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_model_optimization") is None, reason="the extra qat is not installed"
)


@pytest.fixture(scope="module")
def keras(stack):
    """Keras 3 with the backend under test."""
    if stack.name == "tf_keras":
        pytest.skip("models of Keras 3")
    return stack.keras


def hard(keras):
    """As in MobileNetV3, behind a normalization without effect: a gate of operations, one of them named as a layer is, and hard activations."""
    layers = keras.layers
    image = layers.Input((8, 8, 3), name="image")
    x = layers.Normalization(name="nothing")(image)  # as in EfficientNet, before its weights are loaded
    x = layers.Conv2D(6, 3, activation="hard_swish", name="stem")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    gate = layers.ReLU(6.0, name="clip")(layers.Conv2D(6, 1, name="excite")(gate) + 3.0) * (1.0 / 6.0)
    x = layers.Activation("hard_sigmoid", name="hard")(layers.Multiply(name="gated")([x, gate]))
    return keras.Model(image, layers.Dense(3, activation="softmax", name="head")(layers.Flatten(name="flat")(x)))


def convnext(keras):
    """As in ConvNeXt: a grouped convolution, a normalization of each pixel, and a scale of its own class."""
    from keras.src.applications.convnext import LayerScale

    layers = keras.layers
    image = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(6, 3, padding="same", name="stem")(image)
    y = layers.Conv2D(6, 3, padding="same", groups=6, name="grouped")(x)
    y = layers.Dense(12, activation="gelu", name="wide")(layers.LayerNormalization(name="norm")(y))
    x = x + LayerScale(0.5, 6, name="scale")(layers.Dense(6, name="narrow")(y))
    x = LayerScale(2.0, 6, name="alone")(layers.MaxPooling2D(name="pool")(x))
    return keras.Model(image, layers.Dense(3, activation="softmax", name="head")(layers.Flatten(name="flat")(x)))


def inception(keras):
    """As in Inception-ResNet: a sum of its own class, and a sum of three."""
    from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    layers = keras.layers
    image = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="stem")(image)
    y = layers.Conv2D(4, 1, activation="silu", name="branch")(x)
    x = layers.Add(name="three")([x, y, CustomScaleLayer(0.2, name="residual")([x, y])])
    return keras.Model(image, layers.Dense(3, activation="softmax", name="head")(layers.Flatten(name="flat")(x)))


def attention(keras):
    """An attention to other values than its queries', with dropout."""
    layers = keras.layers
    series = layers.Input((5, 4), name="series")
    other = layers.Dense(3, name="other")(series)
    x = layers.MultiHeadAttention(2, 4, dropout=0.1, name="attention")(series, other)
    return keras.Model(series, layers.Dense(3, activation="softmax", name="head")(layers.Flatten(name="flat")(x)))


def both_ways(keras):
    """A recurrent layer of two directions, which have weights of the same names."""
    layers = keras.layers
    series = layers.Input((4, 3), name="series")
    x = layers.Bidirectional(layers.GRU(4, unroll=True), name="both")(series)
    return keras.Model(series, layers.Dense(3, activation="softmax", name="head")(x))


def trained(keras, build, engine, rng, **options):
    """A net that was quantized and trained for three small steps, and its samples."""
    keras.utils.set_random_seed(6)
    model = build(keras)
    x = rng.normal(size=(24, *model.inputs[0].shape[1:])).astype("float32")
    aware = kp.quantize_aware(model, "int8", engine, representative_dataset=x, **options)
    aware.compile("adam", "sparse_categorical_crossentropy")
    assert np.isfinite(aware.fit(x, np.arange(24) % 3, batch_size=8, verbose=0).history["loss"]).all()
    return model, aware, x


@pytest.mark.parametrize("build", [hard, convnext, inception])
def test_the_native_engine_takes_them(keras, rng, tmp_path, build):
    """Trained, exported with the ranges of training, and the file answers as the model does."""
    _, aware, x = trained(keras, build, "keras", rng)
    result = kp.export_tflite(aware, tmp_path / "net.tflite", representative_dataset=x)
    assert set(result.plan.layers) <= {"norm"}
    kinds = {row.subject for row in result.select("operator_count")}
    assert {kind for kind in kinds if kind.endswith("float32")} <= {"NEG float32"}  # in LayerNormalization
    assert np.abs(kp.edge.predict(tmp_path / "net.tflite", x) - aware.predict(x, verbose=0)).mean() < 0.03


@by_tfmot
@pytest.mark.parametrize("build", [hard, convnext, inception, attention, both_ways])
def test_tfmot_takes_them_rebuilt(keras, rng, tmp_path, build):
    """There, into a file, and back with the trained weights in their places."""
    model, aware, x = trained(keras, build, "tfmot", rng)
    kp.export_tflite(aware, tmp_path / "net.tflite")
    assert np.abs(kp.edge.predict(tmp_path / "net.tflite", x) - aware.predict(x, verbose=0)).mean() < 0.03
    plain = kp.from_quantize_aware(aware)
    assert [type(each) for each in plain.layers] == [type(each) for each in model.layers]
    assert np.abs(plain.predict(x, verbose=0) - aware.predict(x, verbose=0)).mean() < 0.03
    moved = [np.abs(a - b).max() for a, b in zip(plain.get_weights(), model.get_weights(), strict=True)]
    assert 1e-4 < max(moved) < 0.02


@by_tfmot
def test_attention_and_swish_leave_nothing_in_float(keras, rng, tmp_path):
    """Their parts are layers that TensorFlow Model Optimization quantizes."""
    for build in (attention, inception):
        _, aware, _ = trained(keras, build, "tfmot", rng)
        result = kp.export_tflite(aware, tmp_path / "net.tflite")
        assert not [row.subject for row in result.select("operator_count") if row.subject.endswith("float32")]


@by_tfmot
def test_what_tf_keras_cannot_make_is_refused(keras):
    """A mask, an attention that is shared, and an activation that it lacks: by name, with what to do."""
    layers = keras.layers
    series = layers.Input((5, 4))
    shared = layers.MultiHeadAttention(2, 4, name="shared")
    masked = layers.MultiHeadAttention(2, 4, name="masked")(series, series, use_causal_mask=True)
    cases = [
        ("'masked', called with use_causal_mask", masked),
        ("'shared', called more often", shared(shared(series, series), series)),
        ("'glu' of type Activation.*engine='keras'", layers.Activation("glu", name="glu")(series)),
    ]
    for message, output in cases:
        with pytest.raises(ModelError, match=message):
            kp.quantize_aware(keras.Model(series, output), engine="tfmot")


def test_a_layer_of_a_grouped_convolution_is_known_in_the_file(keras, tmp_path):
    """Each Keras compiles it as a function of its own on CPUs; a plan finds it all the same."""
    layers = keras.layers
    image = layers.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, groups=4, name="grouped")(layers.Conv2D(4, 1, name="stem")(image))
    model = keras.Model(image, layers.Conv2D(2, 1, groups=2, name="last")(x))
    plan = kp.PrecisionPlan.deployment("int8", layers={"grouped": "float32"})
    data = np.random.default_rng(0).random((8, 8, 8, 4)).astype("float32")
    result = kp.export_tflite(model, tmp_path / "net.tflite", plan, data)
    assert result.value("operator_count", "CONV_2D float32") == 1
    assert result.value("operator_count", "CONV_2D int8") == 2


def test_a_net_that_was_never_trained_starts_with_its_first_batch(keras, rng):
    """The values behind fresh normalizations are not those of training; what was calibrated would clip them all."""
    layers = keras.layers
    features = layers.Input((8,))
    x = features
    for number in range(4):
        x = layers.Dense(8, use_bias=False, kernel_initializer="random_normal")(x)
        x = layers.ReLU(name=f"relu_{number}")(layers.BatchNormalization()(x))
    model = keras.Model(features, layers.Dense(3, activation="softmax", name="head")(x))
    values, classes = rng.normal(size=(32, 8)).astype("float32"), np.arange(32) % 3
    ends = []
    for _ in range(2):  # fresh, and after a step of training
        aware = kp.quantize_aware(model, representative_dataset=values)
        ends.append(aware.get_layer("relu_3").sites["output"].numbers()[1])
        aware.compile("sgd", "sparse_categorical_crossentropy")
        aware.fit(values, classes, batch_size=32, verbose=0)
        ends.append(aware.get_layer("relu_3").sites["output"].numbers()[1])
        model = kp.from_quantize_aware(aware)
    assert ends[0] == 0
    assert ends[1] > 1
    assert 0 < ends[2] < 0.1


@every_stack
def test_a_layer_takes_a_product_that_keras_calls_sparse(keras, rng):
    """A symbolic tensor times a number is one, and the ranges take no sparse tensors."""
    layers = keras.layers
    features = layers.Input((4,))
    halved = features * 0.5
    output = kp.QuantizeWrapper(layers.Multiply(name="product"), quantize_input=True)([features, halved])
    x = rng.normal(size=(8, 4)).astype("float32")
    got = keras.Model(features, output).predict(x, verbose=0)
    np.testing.assert_allclose(got, x * x * 0.5, atol=1e-6)


@pytest.mark.parametrize("engine", ["keras", pytest.param("tfmot", marks=by_tfmot)])
def test_a_net_that_diverged_is_not_exported(keras, tmp_path, engine):
    """NaN would become integers without a word."""
    features = keras.Input((4,))
    aware = kp.quantize_aware(keras.Model(features, keras.layers.Dense(2, name="head")(features)), engine=engine)
    kernel = aware.trainable_weights[0]
    kernel.assign(np.full(kernel.shape, np.nan, "float32"))
    with pytest.raises(ModelError, match="'(quant_)?head', so training has diverged"):
        kp.export_tflite(aware, tmp_path / "net.tflite")
    assert not list(tmp_path.iterdir())


@by_tfmot
def test_a_rebuilt_net_may_be_off_by_what_rounding_does_to_it(keras):
    """Where the model itself answers samples of other last bits as differently; else a difference is refused."""
    from keras_precision.quantization.qat.tfmot.bridge import Bridge

    layers, x = keras.layers, np.full((4, 3), 0.5, "float32")
    for factor in (1e3, 1.0):  # what comes of a difference of one bit, and of many, is 2.5e-4
        first = layers.Dense(3, kernel_initializer="identity", use_bias=False)
        model = keras.Sequential([layers.Input((3,)), first, layers.Rescaling(factor, offset=-factor / 2)])
        bridge = Bridge(model)
        first.set_weights([first.get_weights()[0] * np.float32(1 + 5e-4 / factor)])
        if factor > 1:
            bridge.compare(model, [x])
        else:
            with pytest.raises(ModelError, match=r"off by 0\.00025"):
                bridge.compare(model, [x])
