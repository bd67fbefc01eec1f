"""Exports of quantization-aware models that are given no data, after one step on nets that were never trained."""

import litert
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import PrecisionError


@pytest.fixture(scope="module")
def keras(stack):
    """Keras 3 with the backend under test."""
    if stack.name == "tf_keras":
        pytest.skip("tf_keras has no native quantization-aware training")
    return stack.keras


def words(keras):
    """Tokens in floats, as Keras has inputs by default, which a file reads as whole numbers."""
    layers = keras.layers
    return [layers.Input((6,)), layers.Embedding(9, 4, name="embedding"), layers.GlobalAveragePooling1D(name="pool")]


def recurrent(keras):
    """Kernels in integers with ranges for each step."""
    return [keras.layers.Input((4, 3)), keras.layers.SimpleRNN(6, unroll=True, name="cells")]


def normalized(keras):
    """Normalizations before and behind activations, with sums and products that a file has only after training."""
    layers = keras.layers
    first, second = layers.BatchNormalization(name="before"), layers.BatchNormalization(name="behind")
    body = [first, layers.ReLU(name="relu"), layers.Conv2D(4, 3, activation="relu", name="conv"), second]
    return [layers.Input((6, 6, 2)), layers.Conv2D(4, 1, name="stem"), *body, layers.Flatten(name="flat")]


def scaled(keras):
    """A layer of the user's own, whose last product is part of the next kernel."""

    class HalfSquare(keras.layers.Layer):
        def call(self, inputs):
            return keras.ops.square(inputs) * 0.5

    return [keras.layers.Input((6,)), keras.layers.Dense(6, name="hidden"), HalfSquare(name="half")]


def trained(keras, layers, rng, *, with_data=False):
    """A net that was trained for one step with rounding, and its samples."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential([*layers, keras.layers.Dense(3, name="head")])
    shape = (32, *model.inputs[0].shape[1:])
    x = rng.integers(0, 9, shape) if model.layers[0].name == "embedding" else rng.normal(size=shape)
    x = x.astype("float32")
    aware = kp.quantize_aware(model, "int8", representative_dataset=x if with_data else None)
    aware.compile(keras.optimizers.SGD(1e-3), "mse")
    aware.fit(x, np.zeros((32, 3)), batch_size=32, verbose=0)
    return aware, x


def noise(expected, received):
    """The mean square of the error, as a share of that of the outputs."""
    return np.mean((expected - received) ** 2) / np.mean(expected**2)


@pytest.mark.parametrize("build", [words, recurrent, normalized, scaled])
def test_one_step_is_enough(keras, rng, tmp_path, build):
    """The file computes what the trained model does, with ranges from the layers and from samples that the model holds."""
    aware, x = trained(keras, build(keras), rng)
    result = kp.export_tflite(aware, tmp_path / "model.tflite")
    assert result.value("calibration_method") == "trained"
    assert result.value("foreign_ranges") == 0
    (received,) = litert.predict(tmp_path / "model.tflite", {aware.inputs[0].name: x})
    assert noise(aware.predict(x, verbose=0), received) < 0.002


def test_operations_that_are_no_layers_have_ranges_of_their_own(keras, rng, tmp_path):
    """What an operation behind a layer makes of its output is not taken for that output, although one kernel computes both."""
    values = keras.Input((8,), name="values")
    hidden = keras.layers.Dense(8, name="hidden")(values) * 0.25 + 5.0
    model = keras.Model(values, keras.layers.Dense(3, name="head")(hidden))
    x = rng.normal(size=(32, 8)).astype("float32")
    aware = kp.quantize_aware(model, "int8")
    aware.compile(keras.optimizers.SGD(1e-3), "mse")
    aware.fit(x, np.zeros((32, 3)), batch_size=32, verbose=0)
    kp.export_tflite(aware, tmp_path / "model.tflite", io="float32")
    (received,) = litert.predict(tmp_path / "model.tflite", {"values": x})
    assert noise(aware.predict(x, verbose=0), received) < 0.002


def buffers(model):
    """The layers of a model that hold samples of its inputs."""
    return [layer for layer in model.layers if type(layer).__name__ == "SampleBuffer"]


@pytest.mark.every_stack
def test_samples_are_held_where_they_are_needed(keras, rng, tmp_path):
    """Those given to quantize_aware, in place of any that are trained with, also in a saved file, and not in a plain model."""
    aware, x = trained(keras, recurrent(keras), rng)
    (buffer,) = buffers(aware)
    assert {row.tobytes() for row in buffer.samples()} == {row.tobytes() for row in x}
    aware, x = trained(keras, recurrent(keras), rng, with_data=True)
    aware.fit(x + 100, np.zeros((32, 3)), verbose=0)
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    (buffer,) = buffers(loaded)
    assert {row.tobytes() for row in buffer.samples()} == {row.tobytes() for row in x}
    assert list(kp.layer_paths(loaded)) == ["cells", "head"]
    assert not buffers(kp.from_quantize_aware(loaded))
    dense, _ = trained(keras, [keras.Input((8,)), keras.layers.Dense(4, activation="relu", name="hidden")], rng)
    assert not buffers(dense)


def test_two_inputs_hold_the_same_samples(keras, rng, tmp_path):
    """A functional model with inputs of two types, whose order is not that of their names."""
    layers = keras.layers
    words, series = layers.Input((4,), dtype="int32", name="words"), layers.Input((4, 3), name="series")
    embedded = layers.Embedding(9, 3, keras.initializers.RandomUniform(-2, 2), name="embedding")(words)
    x = layers.Concatenate(name="both")([embedded, series])
    model = keras.Model([words, series], layers.Dense(2, name="head")(layers.GRU(4, unroll=True, name="cells")(x)))
    data = {
        "series": rng.normal(size=(40, 4, 3)).astype("float32"),
        "words": rng.integers(0, 9, (40, 4)).astype("int32"),
    }
    data["series"][:, 0, 0] = data["words"][:, 0] / 8
    aware = kp.quantize_aware(model, "int8")
    aware.compile(keras.optimizers.SGD(1e-3), "mse")
    aware.fit(data, np.zeros((40, 2)), batch_size=8, verbose=0)
    tokens, values = (buffer.samples() for buffer in buffers(aware))
    assert tokens.dtype == np.int32
    assert len(tokens) == 40
    np.testing.assert_array_equal(tokens[:, 0] / 8, values[:, 0, 0])
    kp.export_tflite(aware, tmp_path / "model.tflite", io="float32")
    (received,) = litert.predict(tmp_path / "model.tflite", data)
    assert noise(aware.predict(data, verbose=0), received) < 0.003


def test_tokens_in_floats_are_not_rounded(keras, rng, tmp_path):
    """An int8 file of a trained net takes them in float32, which a note says, unless the caller asks for integers."""
    model = keras.Sequential([*words(keras), keras.layers.Dense(3, name="head")])
    x = rng.integers(0, 9, (32, 6)).astype("float32")
    result = kp.export_tflite(model, tmp_path / "model.tflite", "int8", x)
    assert any("inputs and outputs stayed in float32" in note for note in result.notes)
    (received,) = litert.predict(tmp_path / "model.tflite", {model.inputs[0].name: x})
    assert noise(model.predict(x, verbose=0), received) < 0.001


def test_inputs_of_free_sizes_need_data_again(keras, rng, tmp_path):
    """Samples of several sizes have no place in one buffer; the error asks for data, with which the export goes."""
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(4, name="cells"), keras.layers.Dense(2)])
    x = rng.normal(size=(16, 5, 3)).astype("float32")
    aware = kp.quantize_aware(model, "int8", representative_dataset=x)
    assert not buffers(aware)
    with pytest.raises(PrecisionError):
        kp.export_tflite(aware, tmp_path / "model.tflite")
    assert kp.export_tflite(aware, tmp_path / "model.tflite", representative_dataset=x).value("size_bytes") > 0


def test_inputs_may_have_any_name(keras, rng):
    """Samples of inputs whose names are no scope of TensorFlow are held all the same, and each input keeps its name."""
    layers = keras.layers
    names = ("größe", "left right")
    inputs = [layers.Input((4, 3), name=name) for name in names]
    series = [layers.SimpleRNN(4, unroll=True, name=f"cells_{number}")(value) for number, value in enumerate(inputs)]
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Concatenate(name="joined")(series)))
    x = [rng.normal(size=(8, 4, 3)).astype("float32") for _ in names]
    aware = kp.quantize_aware(model, "int8", representative_dataset=tuple(x))
    assert aware.predict(x, verbose=0).shape == (8, 2)
    plain = kp.from_quantize_aware(aware)
    assert [value.name for value in plain.inputs] == list(names)
    np.testing.assert_allclose(plain.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
