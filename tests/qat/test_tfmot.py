"""The engine of TensorFlow Model Optimization: models that it would refuse, and no trace of it in the process."""

import importlib.util
import os
import subprocess
import sys

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import InputError, MissingExtraError, ModelError, PlanError
from keras_precision.quantization.qat.tfmot_engine import restore_from_tfmot

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_model_optimization") is None, reason="the extra qat is not installed"
)


@pytest.fixture(scope="module")
def keras(stack):
    """Keras 3 on TensorFlow."""
    return stack.keras


def refused(keras):
    """A net of layers that TFMOT refuses: a normalization first, one behind an activation, a separable convolution."""
    layers = keras.layers
    image = layers.Input((12, 12, 1), name="image")
    x = layers.BatchNormalization(name="first")(image)
    x = layers.SeparableConv2D(4, 3, activation="relu", name="separable")(x)
    x = layers.BatchNormalization(scale=False, name="second")(x)
    x = keras.ops.relu6(x + 0.5)
    x = layers.AveragePooling2D(2, name="average")(x)
    inner = keras.Sequential(
        [layers.Input((5, 5, 4)), layers.Flatten(name="flat"), layers.Dense(6, name="dense")], name="inner"
    )
    return keras.Model(image, layers.Dense(3, activation="softmax", name="head")(inner(x)), name="refused")


def everyday(keras):
    """Batch normalization of features, of sequences, and behind whatever; activations inside layers; 16 bits throughout."""
    layers = keras.layers
    with kp.precision("mixed_bfloat16"):
        image = layers.Input((12, 12, 1), name="image")
        x = layers.Conv2D(4, 3, activation="relu6", name="stem")(image)
        x = layers.Reshape((25, 16), name="sequence")(x)
        x = layers.BatchNormalization(center=False, name="of_sequences")(x)
        x = layers.Conv1D(4, 3, activation="leaky_relu", name="convolution")(x)
        x = layers.BatchNormalization(scale=False, name="behind")(x)
        x = layers.BatchNormalization(name="of_features")(layers.Flatten(name="flat")(x))
        x = layers.Dense(8, activation="relu6", name="hidden")(x)
        return keras.Model(
            image, layers.Dense(3, activation="softmax", name="head", dtype="float32")(x), name="everyday"
        )


@pytest.mark.parametrize("build", [nets.conv, refused, everyday])
def test_there_and_back_again(keras, rng, tmp_path, build):
    """Rebuilt, trained, exported to integers throughout, and brought back to Keras 3; the model is left alone."""
    keras.utils.set_random_seed(4)
    model = build(keras)
    for weight in model.weights:  # as after some training
        if "moving" in weight.path or "beta" in weight.path:
            weight.assign(weight + rng.uniform(0.05, 0.3, weight.shape).astype("float32"))
    before = [each.copy() for each in model.get_weights()]
    x, y = nets.images(rng, 64)
    in_bfloat16 = build is everyday
    with kp.precision("mixed_bfloat16" if in_bfloat16 else "float32"):
        aware = kp.quantize_aware(model, "int8", engine="tfmot", representative_dataset=x)
    assert type(aware).__module__.startswith("tf_keras")
    untrained = kp.from_quantize_aware(aware)
    answers = model.predict(x, verbose=0)
    np.testing.assert_allclose(untrained.predict(x, verbose=0), answers, atol=1e-2 if in_bfloat16 else 1e-5)
    aware.compile("adam", "sparse_categorical_crossentropy")
    aware.fit(x, y, batch_size=16, epochs=2, verbose=0)
    result = kp.export_tflite(aware, tmp_path / "model.tflite", validation_data=(x, y))
    assert result.value("engine") == "tfmot"
    assert result.notes == ()
    assert result.value("agreement") >= 0.9
    plain = kp.from_quantize_aware(aware)
    assert [type(each) for each in plain.layers] == [type(each) for each in model.layers]
    assert np.abs(plain.predict(x, verbose=0) - aware.predict(x, verbose=0)).max() < 0.1
    assert np.abs(plain.predict(x, verbose=0) - model.predict(x, verbose=0)).max() > 1e-3
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_of_tf_keras_takes_this_engine_by_itself(rng, tmp_path):
    """With ``engine="auto"``; its plain model is one of tf_keras, and a layer can be left in float."""
    tf_keras = pytest.importorskip("tf_keras")
    model = nets.mlp(tf_keras)
    x, y = nets.classes(rng)
    aware = kp.quantize_aware(model, kp.PrecisionPlan.deployment("int8", layers={"head": "float32"}))
    assert [layer.name for layer in aware.layers if layer.name.startswith("quant_")] == ["quant_hidden"]
    aware.compile("adam", "sparse_categorical_crossentropy")
    aware.fit(x, y, verbose=0)
    plain = kp.from_quantize_aware(aware)
    assert isinstance(plain, tf_keras.Sequential)
    assert np.abs(plain.get_weights()[0] - model.get_weights()[0]).max() > 0


def test_an_adapted_layer_computes_as_before(rng):
    """The constants of a Normalization reach the prepared model: its float layers compute the outputs of the original."""
    import tf_keras

    x = (rng.normal(size=(64, 3)) * 5 + [10, 400, 2]).astype("float32")
    normalization = tf_keras.layers.Normalization(name="normalization")
    normalization.adapt(x)
    model = tf_keras.Sequential([tf_keras.Input((3,)), normalization, tf_keras.layers.Dense(2, name="head")])
    plan = kp.PrecisionPlan.deployment("int8", layers={"normalization": "float32"})
    aware = kp.quantize_aware(model, plan, engine="tfmot")
    prepared = next(layer for layer in aware.submodules if layer.name == "normalization")
    np.testing.assert_allclose(prepared(x), normalization(x), atol=1e-6)
    np.testing.assert_array_equal(kp.from_quantize_aware(aware).predict(x, verbose=0), model.predict(x, verbose=0))


def test_no_trace_is_left_in_the_process():
    """Neither the environment nor ``tf.keras`` is another one afterwards."""
    code = (
        "import os, keras, keras_precision as kp, tensorflow as tf\n"
        "model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])\n"
        "kp.quantize_aware(model, engine='tfmot')\n"
        "print('TF_USE_LEGACY_KERAS' in os.environ, tf.keras.layers.Dense is keras.layers.Dense)\n"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert child.stdout.split() == ["False", "True"]


def test_what_it_cannot_do_is_refused(keras, monkeypatch):
    """Each refusal names what is wrong, and the other engine where that helps."""
    tf_keras = pytest.importorskip("tf_keras")
    model = nets.mlp(keras)
    features = keras.Input((8, 4))

    class Own(keras.layers.Layer):
        def call(self, inputs):
            return inputs * 2.0

    own = keras.Model(features, Own(name="own")(features))
    regularized = keras.Model(features, keras.layers.Dense(4, activity_regularizer="l2", name="sparse")(features))
    rolled = keras.Model(features, keras.ops.roll(keras.layers.Dense(4)(features), 1))
    aware = kp.quantize_aware(model, engine="tfmot")
    other = kp.PrecisionPlan.deployment("int8", layers={"quant_head": "float32"})
    cases = [
        (
            PlanError,
            "int8 or float32.*Received: int4.*engine='keras'",
            lambda: kp.quantize_aware(model, "int4", "tfmot"),
        ),
        (PlanError, "leaves every layer in float32", lambda: kp.quantize_aware(model, "float32", "tfmot")),
        (InputError, "no settings of ranges", lambda: kp.quantize_aware(model, engine="tfmot", freeze_after=3)),
        (ModelError, "'own' of type Own.*engine='keras'", lambda: kp.quantize_aware(own, engine="tfmot")),
        (ModelError, "'sparse' of type Dense with one", lambda: kp.quantize_aware(regularized, engine="tfmot")),
        (ModelError, "of type Roll", lambda: kp.quantize_aware(rolled, engine="tfmot")),
        (ModelError, "quantization-aware already", lambda: kp.quantize_aware(aware)),
        (ModelError, "for engine='keras'", lambda: kp.quantize_aware(nets.mlp(tf_keras), engine="keras")),
        (ModelError, "of Keras 3 for .*tensorflow-model-optimization", lambda: kp.export_onnx(aware, "model.onnx")),
        (ModelError, "whose original is unknown", lambda: restore_from_tfmot(nets.mlp(tf_keras))),
        (PlanError, "Leave the plan out", lambda: kp.export_tflite(aware, "model.tflite", other)),
        (InputError, "Expected 'output'", lambda: kp.register_tfmot_config("Dense", "weights")),
    ]
    for error, message, call in cases:
        with pytest.raises(error, match=message):
            call()
    tools = sys.modules["tensorflow_model_optimization"].quantization.keras
    with monkeypatch.context() as patched:
        patched.setattr(tools, "quantize_apply", lambda annotated: nets.mlp(tf_keras))
        with pytest.raises(PlanError, match="one whose int8 layers have no quantized form"):
            kp.quantize_aware(model, engine="tfmot")
        patched.delattr(tools, "quantize_apply")
        with pytest.raises(
            ModelError, match="that TensorFlow Model Optimization supports.*Train it with engine='keras'"
        ):
            kp.quantize_aware(model, engine="tfmot")
    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    with pytest.raises(MissingExtraError, match=r"keras-precision\[qat\]"):
        kp.quantize_aware(model, engine="tfmot")
