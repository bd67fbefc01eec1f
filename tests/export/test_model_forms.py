"""Exports of models that others write: free lengths, subclassed models, and what TFLiteConverter takes with a free batch alone."""

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import DataError, InputError, ModelError


def text_classifier(keras):
    """A net for texts of any length."""
    layers = keras.layers
    steps = [layers.Input((None,), dtype="int32"), layers.Embedding(50, 8), layers.GlobalAveragePooling1D()]
    return keras.Sequential([*steps, layers.Dense(3, name="head")])


class Tower:
    """What a subclassed model of any Keras does with a dict of inputs."""

    def call(self, inputs):
        """Add what a layer computes of both inputs."""
        return self.head(inputs["left"]) + self.head(inputs["right"])


def tower(keras):
    """A subclassed model with a dict of inputs, and its inputs."""
    kind = type("Tower", (Tower, keras.Model), {})
    model = kind(name="tower")
    model.head = keras.layers.Dense(3, name="head")
    x = {
        key: np.random.default_rng(n).normal(size=(120, 4)).astype("float32") for n, key in enumerate(("left", "right"))
    }
    model(x)
    return model, x


@pytest.mark.every_stack
def test_free_lengths_are_those_of_the_data(stack, tmp_path, rng):
    """Without a signature, the file has the length of the calibration's samples, on every backend."""
    model, x = text_classifier(stack.keras), rng.integers(0, 50, (120, 12))
    kp.export_tflite(model, tmp_path / "model.tflite", "int8", x)
    assert kp.edge.inspect(tmp_path / "model.tflite").inputs[0].shape == (1, 12)
    assert kp.evaluate(tmp_path / "model.tflite", x, reference=model).value("snr_db") > 20


def test_a_signature_gives_the_sizes(tmp_path):
    """As for Model.export of Keras: a specification for each input, in a list, by name, or alone."""
    import keras

    model, path = text_classifier(keras), tmp_path / "model.tflite"
    spec = keras.InputSpec(shape=(1, 9), dtype="int32")
    for signature in ([spec], {model.inputs[0].name: spec}, np.zeros((1, 9), "int32")):
        kp.export_tflite(model, path, "float32", input_signature=signature)
        assert kp.edge.inspect(path).inputs[0].shape == (1, 9)
    with pytest.raises(ModelError, match=r"shape \(n, None\)\. Give one: input_signature="):
        kp.export_tflite(model, path, "float32")
    for shape in ((2, 9), (1, None), (1, 9, 3)):
        with pytest.raises(InputError, match="Expected an input_signature of keras.InputSpec"):
            kp.export_tflite(model, path, "float32", input_signature=[keras.InputSpec(shape=shape)])


def test_samples_of_several_lengths_are_refused(rng):
    """A file has one."""
    import keras

    batches = [rng.integers(0, 50, (4, length)) for length in (12, 9)]
    with pytest.raises(DataError, match=r"Expected samples of one size, \(12,\).*Received: \(9,\)"):
        kp.calibrate(text_classifier(keras), lambda: iter(batches))


@pytest.mark.every_stack
def test_subclassed_models_are_wrapped(stack, tmp_path):
    """They are called on symbolic inputs of the sizes that they were called with; their layers keep their paths."""
    if stack.name in ("jax", "torch"):
        pytest.skip("a child process loads the model, which needs its class")
    model, x = tower(stack.keras)
    plan = kp.PrecisionPlan.deployment("int8", layers={"head": "float32"})
    result = kp.export_tflite(model, tmp_path / "model.tflite", plan, x)
    assert result.plan.precision_of("head") == "float32"
    assert kp.evaluate(tmp_path / "model.tflite", x, reference=model).value("snr_db") > 30
    assert kp.lint(model) == ()


def test_subclassed_models_that_cannot_be_wrapped():
    """Those that were never called have no sizes; those that need values have no symbolic form."""
    import keras

    class Odd(keras.Model):
        def call(self, inputs):
            return inputs * float(inputs[0, 0])

    with pytest.raises(ModelError, match="which was not called. Call it on data first, or pass input_signature="):
        kp.lint(nets.subclassed(keras))
    model = Odd()
    model(np.ones((2, 3), "float32"))
    with pytest.raises(ModelError, match="one that can be called on symbolic inputs.*Wrap it"):
        kp.lint(model)
    called = nets.subclassed(keras)
    assert kp.lint(called, input_signature=[keras.InputSpec(shape=(1, 4))]) == ()


def test_attention_on_one_feature(tmp_path, rng):
    """TFLiteConverter fails on it for a batch of one, and not for a free batch, which is fixed afterwards."""
    import keras

    layers, path = keras.layers, tmp_path / "model.tflite"
    series = layers.Input((10, 1))
    attended = layers.MultiHeadAttention(2, 4)(series, series) + series
    hidden = layers.Conv1D(3, 1, activation="relu")(attended)
    model = keras.Model(series, layers.Dense(2)(layers.GlobalAveragePooling1D()(hidden + attended)))
    x = rng.normal(size=(120, 10, 1)).astype("float32")
    kp.export_tflite(model, path, "int8", x)
    assert kp.edge.inspect(path).inputs[0].shape == (1, 10, 1)
    assert kp.evaluate(path, x, reference=model).value("snr_db") > 15
