"""Model files of users: all are loaded, whatever layers, policies and functions they have."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters.model_file.load_model import load_compiled_model
from keras_precision.core.errors import FileFormatError

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")


def saved(keras: Any, model: Any, path: Path) -> Path:
    """Save a model in the form that the path says, and return the path."""
    model.save(path) if path.suffix == ".keras" else keras.models.save_model(model, str(path))
    return path


def chain(*layers: Any, shape: tuple[int, ...], keras: Any, dtype: str | None = None) -> Any:
    """Return a model of layers in a row."""
    x = source = keras.layers.Input(shape, dtype=dtype)
    for layer in layers:
        x = layer(x)
    return keras.Model(source, x)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("package", ["keras", "tf_keras"])
@pytest.mark.parametrize("net", ["mlp", "conv", "unnamed", "nested", "composite", "two_inputs"])
def test_nets_are_loaded(net: str, package: str, suffix: str, tmp_path: Path) -> None:
    """The nets of the tests come back from all forms of both Keras versions with the same weights."""
    keras = pytest.importorskip(package)
    model = getattr(nets, net)(keras)
    loaded = kp.load_model(saved(keras, model, tmp_path / f"model{suffix}"))
    pairs = zip(model.get_weights(), loaded.get_weights(), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)


def preprocessing(keras: Any) -> list[Any]:
    """Models with vocabularies and statistics."""
    layers = keras.layers
    return [
        chain(layers.StringLookup(vocabulary=["a", "b"]), shape=(3,), keras=keras, dtype="string"),
        chain(layers.IntegerLookup(vocabulary=[1, 2]), shape=(3,), keras=keras, dtype="int64"),
        chain(layers.TextVectorization(vocabulary=["a", "b"]), shape=(1,), keras=keras, dtype="string"),
        chain(layers.Discretization([0.0, 1.0]), layers.CategoryEncoding(3), shape=(1,), keras=keras),
        chain(layers.Normalization(mean=0.5, variance=2.0), layers.Rescaling(2.0), shape=(3,), keras=keras),
    ]


def settings(keras: Any) -> list[Any]:
    """Models whose layers have objects of Keras as settings."""
    layers, initializers, regularizers = keras.layers, keras.initializers, keras.regularizers
    dense = layers.Dense(
        3,
        activation=keras.activations.gelu,
        kernel_initializer=initializers.VarianceScaling(2.0),
        bias_initializer=initializers.Constant(0.5),
        kernel_regularizer=regularizers.L1L2(0.1, 0.1),
        activity_regularizer="l2",
        kernel_constraint=keras.constraints.MaxNorm(2),
        dtype=keras.mixed_precision.Policy("mixed_bfloat16") if keras.__name__ == "tf_keras" else "mixed_bfloat16",
    )
    half = layers.Dense(3, dtype="mixed_float16", activation=layers.LeakyReLU())
    return [
        chain(dense, half, layers.PReLU(), layers.LayerNormalization(), shape=(3,), keras=keras),
        chain(layers.RNN([layers.LSTMCell(3), layers.GRUCell(3)]), shape=(4, 3), keras=keras),
        chain(layers.EinsumDense("abc,cd->abd", output_shape=(None, 4)), shape=(3, 3), keras=keras),
        chain(layers.TimeDistributed(layers.Conv1D(2, 2)), layers.GroupNormalization(1), shape=(4, 3, 2), keras=keras),
        chain(layers.Embedding(4, 3), layers.Bidirectional(layers.GRU(2)), shape=(3,), keras=keras),
        chain(layers.SeparableConv2D(2, 2, depthwise_initializer="he_uniform"), shape=(4, 4, 3), keras=keras),
    ]


def compiled(keras: Any) -> list[Any]:
    """Compiled models, one of them inside another."""
    model = nets.mlp(keras)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy", keras.metrics.AUC()])
    model.optimizer.build(model.trainable_variables)
    return [model, chain(model, shape=(8,), keras=keras)]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("package", ["keras", "tf_keras"])
@pytest.mark.parametrize("models", [preprocessing, settings, compiled], ids=lambda models: models.__name__)
def test_what_layers_are_set_to_is_loaded(
    models: Callable[[Any], list[Any]], package: str, suffix: str, tmp_path: Path
) -> None:
    """Vocabularies, policies, initializers, regularizers, constraints, cells and losses of Keras are no harm."""
    keras = pytest.importorskip(package)
    for model in models(keras):
        kp.load_model(saved(keras, model, tmp_path / f"model{suffix}"))


def test_operations_of_keras_3_are_loaded(tmp_path: Path) -> None:
    """Operators, slices and functions of keras.ops between layers come back and compute the same."""
    import keras

    ops, source = keras.ops, keras.layers.Input((4, 3))
    x = 1.0 - (ops.relu(source) + source)[:, :2, ...]
    x = ops.reshape(ops.einsum("bij,bik->bjk", x, x), (-1, 9))
    x = ops.where(x > 0, x, 0.5)
    model = keras.Model(source, keras.layers.MultiHeadAttention(2, 2)(x[:, None], x[:, None]))
    loaded = kp.load_model(saved(keras, model, tmp_path / "model.keras"))
    values = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    assert np.allclose(model.predict(values, verbose=0), loaded.predict(values, verbose=0), atol=1e-5)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_functions_of_tensorflow_between_layers_are_loaded(suffix: str, tmp_path: Path) -> None:
    """What tf_keras saves as TFOpLambda and SlicingOpLambda comes back and computes the same."""
    import tensorflow as tf
    import tf_keras

    source = tf_keras.layers.Input((4, 4, 3))
    x = tf_keras.layers.Conv2D(3, 1, activation=tf.nn.relu)(source)
    x = (tf.nn.relu(x) + x)[:, :2] * x[:, 2:] / 2.0 - 1.0
    x = tf.image.resize(x, (4, 4))
    x = tf.reshape(tf.concat([x, tf.math.abs(x) ** 2], -1), (-1, 96))
    x = tf.cast(tf.cast(x, "float16"), tf.float32)
    x = tf.where(x > 0, x, tf.clip_by_value(-x, 0, 1))
    x = tf_keras.backend.mean(tf.stack([x, x], 1), axis=1)
    model = tf_keras.Model(source, tf.nn.l2_normalize(tf_keras.activations.gelu(x), -1))
    loaded = kp.load_model(saved(tf_keras, model, tmp_path / f"model{suffix}"))
    values = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    assert np.allclose(model.predict(values, verbose=0), loaded.predict(values, verbose=0), atol=1e-4)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_ragged_tensors_are_loaded(suffix: str, tmp_path: Path) -> None:
    """What tf_keras saves as InstanceMethod comes back."""
    import tf_keras

    source = tf_keras.layers.Input((None, 3), ragged=True)
    path = saved(tf_keras, tf_keras.Model(source, source.to_tensor()), tmp_path / f"model{suffix}")
    assert [type(layer).__name__ for layer in kp.load_model(path).layers] == ["InputLayer", "InstanceMethod"]


@pytest.mark.filterwarnings("ignore:The `keras.initializers.serialize:UserWarning")
@pytest.mark.parametrize(
    ("package", "name"), [("keras", "MobileNetV2"), ("tf_keras", "MobileNetV2"), ("tf_keras", "EfficientNetV2B0")]
)
def test_applications_are_loaded(package: str, name: str, tmp_path: Path) -> None:
    """Nets of keras.applications come back; EfficientNetV2 of tf_keras has an initializer of TensorFlow."""
    keras = pytest.importorskip(package)
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3))
    loaded = kp.load_model(saved(keras, model, tmp_path / "model.keras"))
    assert loaded.count_params() == model.count_params()


def own(keras: Any) -> tuple[Any, Any]:
    """Return a class and a function of the caller's own."""

    class Scaled(keras.layers.Layer):
        """Multiplies."""

        def call(self, inputs: Any) -> Any:
            return 3 * inputs

    def cubed(x: Any) -> Any:
        return x**3

    return Scaled, cubed


def with_own(keras: Any, layer: Any, function: Any, suffix: str) -> Any:
    """Return a model with both; in .h5 files tf_keras itself does not load such a function."""
    activation = function if suffix == ".keras" else "relu"
    return chain(layer(name="own"), keras.layers.Activation(activation, name="cubed"), shape=(2,), keras=keras)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_what_the_caller_passes_is_loaded(package: str, suffix: str, tmp_path: Path) -> None:
    """An own class and an own function are refused without custom_objects, with all ways out, and loaded with them."""
    keras = pytest.importorskip(package)
    layer, function = own(keras)
    path = saved(keras, with_own(keras, layer, function, suffix), tmp_path / f"model{suffix}")
    with pytest.raises(FileFormatError, match=r"(?s)unsafe=True.*custom_objects|custom_objects.*unsafe=True"):
        kp.load_model(path)
    loaded = kp.load_model(path, custom_objects={"Scaled": layer, "cubed": function})
    assert loaded.predict(np.ones((1, 2)), verbose=0).tolist() == ([[27, 27]] if suffix == ".keras" else [[3, 3]])


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_what_the_caller_registered_is_loaded(package: str, suffix: str, tmp_path: Path) -> None:
    """An own class and an own function are loaded once they are registered, or while a scope names them."""
    keras = pytest.importorskip(package)
    layer, function = own(keras)
    path = saved(keras, with_own(keras, layer, function, suffix), tmp_path / f"scope{suffix}")
    with keras.saving.custom_object_scope({"Scaled": layer, "cubed": function}):
        assert kp.load_model(path).count_params() == 0
    registry = keras.saving.get_custom_objects()
    before = dict(registry)
    try:
        for thing in (layer, function):
            keras.saving.register_keras_serializable("sound_files")(thing)
        model = with_own(keras, layer, function, suffix)
        loaded = kp.load_model(saved(keras, model, tmp_path / f"registered{suffix}"))
    finally:
        registry.clear()
        registry.update(before)
    assert loaded.predict(np.ones((1, 2)), verbose=0).tolist() == ([[27, 27]] if suffix == ".keras" else [[3, 3]])


def own_loss(truth: Any, prediction: Any) -> Any:
    """A loss of the caller's own."""
    return (truth - prediction) ** 2


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_a_loss_of_the_callers_own_is_left_out(package: str, suffix: str, tmp_path: Path) -> None:
    """A model that was compiled with an own function is loaded, not compiled; to compile it, it must be registered."""
    keras = pytest.importorskip(package)
    model = nets.mlp(keras)
    model.compile("sgd", own_loss)
    path = saved(keras, model, tmp_path / f"model{suffix}")
    assert kp.load_model(path).name == "mlp"
    with pytest.raises(FileFormatError, match="register"):
        load_compiled_model(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_model_is_loaded_compiled_for_a_run(suffix: str, tmp_path: Path) -> None:
    """What a trial loads is compiled as it was."""
    import keras

    model, _ = compiled(keras)
    loaded = load_compiled_model(saved(keras, model, tmp_path / f"model{suffix}"))
    assert (type(loaded.optimizer).__name__, loaded.compiled) == ("Adam", True)


def test_wrappers_of_this_package_are_loaded(tmp_path: Path) -> None:
    """Layers that quantize or hold a precision of their own come back in a process that imported nothing else."""
    import subprocess

    import keras

    wrapped = kp.QuantizeWrapper(keras.layers.Dense(2), "int8")
    model = chain(wrapped, kp.PrecisionWrapper(keras.layers.Dense(2), "float32"), shape=(4,), keras=keras)
    path = saved(keras, model, tmp_path / "model.keras")
    assert [type(layer).__name__ for layer in kp.load_model(path).layers][1:] == ["QuantizeWrapper", "PrecisionWrapper"]
    script = f"import keras_precision as kp, json; print(json.dumps(kp.load_model({str(path)!r}).count_params()))"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout.splitlines()[-1]) == model.count_params()
