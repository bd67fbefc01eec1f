"""export_tflite, on every stack: those that cannot export say so."""

import gc
import os
import re

import nets
import numpy as np
import pytest
import tensorflow as tf

import keras_precision as kp
from keras_precision.core.errors import (
    DataError,
    DestinationError,
    ExportError,
    InputError,
    ModelError,
    PlanKindError,
    PlanNotHonouredError,
    UnknownLayerError,
    UnknownPrecisionError,
)

pytestmark = pytest.mark.every_stack


@pytest.fixture
def exporting(stack):
    """The Keras under test, where it exports in this process."""
    if not stack.exports:
        pytest.skip(f"{stack.name} exports through a child; test_models_of_other_backends_go_through_a_child covers it")
    return stack.keras


@pytest.fixture
def trained(exporting, rng):
    """A convolutional net that was trained a little, and the images that it knows."""
    exporting.utils.set_random_seed(5)
    model = nets.conv(exporting)
    model.compile(exporting.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    x, y = nets.images(rng, 96)
    model.fit(x, y, batch_size=16, epochs=12, verbose=0)
    return model, x, y


def test_models_of_other_backends_go_through_a_child(stack, rng, tmp_path):
    """A model of JAX or PyTorch, with a layer and a function of the user's own, is exported and answers as it did."""
    if stack.exports:
        pytest.skip("this stack exports in its own process")
    layers = stack.keras.layers

    class Doubled(layers.Layer):
        def call(self, inputs):
            return inputs * 2.0

    image = layers.Input((12, 12, 1), name="image")
    x = Doubled(name="doubled")(nets.conv(stack.keras)(image))
    model = stack.keras.Model(image, layers.Lambda(lambda values: values + 1.0, name="more", output_shape=(3,))(x))
    images = rng.uniform(size=(16, 12, 12, 1)).astype("float32")
    result = kp.export_tflite(model, tmp_path / "model.tflite", "int8", images)
    assert result.plan == kp.PrecisionPlan.deployment("int8", layers=dict(result.plan.layers))
    assert result.value("operator_count", "CONV_2D int8") == 2
    np.testing.assert_allclose(
        kp.edge.predict(tmp_path / "model.tflite", images), model.predict(images, verbose=0), atol=0.1
    )
    assert [file.name for file in tmp_path.iterdir()] == ["model.tflite"]


@pytest.mark.parametrize(
    ("precision", "kernel"), [("float32", "CONV_2D float32"), ("float16", "CONV_2D float16"), ("int8", "CONV_2D int8")]
)
def test_file_does_what_its_plan_says(trained, tmp_path, precision, kernel):
    """Each precision is found in the operators of the file, and its answers agree with Keras."""
    model, x, y = trained
    path = tmp_path / "model.tflite"
    result = kp.export_tflite(model, path, precision, representative_dataset=x[:50])
    assert result.plan == kp.PrecisionPlan.deployment(precision)
    assert result.value("operator_count", kernel) == 2
    larger = ("the int8 file has",) if precision == "int8" else ()  # of so small a net
    assert tuple(note[:17] for note in result.notes) == larger
    assert result.value("size_bytes") == path.stat().st_size
    expected = model.predict(x, verbose=0)
    scored = kp.evaluate(path, x, y, reference=expected)
    assert scored.value("agreement") > 0.95
    np.testing.assert_allclose(
        kp.edge.predict(path, x), expected, atol={"float32": 1e-5, "float16": 0.01, "int8": 0.15}[precision]
    )
    assert [file.name for file in tmp_path.iterdir()] == ["model.tflite"]


def test_int8_takes_integers_or_floats(trained, tmp_path):
    """Inputs and outputs are int8 by default, and float32 on demand, with the same answers."""
    model, x, _ = trained
    integer = kp.export_tflite(model, tmp_path / "i.tflite", "int8", x)
    floating = kp.export_tflite(model, tmp_path / "f.tflite", "int8", x, io="float32")
    assert integer.value("input_type").startswith("int8 (scale ")
    assert integer.value("output_type").startswith("int8 (scale ")
    assert floating.value("input_type") == floating.value("output_type") == "float32"
    assert integer.value("calibration_samples") == 96
    np.testing.assert_allclose(
        kp.edge.predict(tmp_path / "i.tflite", x), kp.edge.predict(tmp_path / "f.tflite", x), atol=0.02
    )


def test_mixed_precision_models_are_exported_from_their_float32_weights(exporting, rng, tmp_path):
    """A model trained in mixed_float16 becomes a full integer file, and stays as it was."""
    with kp.precision("mixed_float16"):
        model = nets.conv(exporting)
    result = kp.export_tflite(model, tmp_path / "model.tflite", "int8", rng.uniform(size=(8, 12, 12, 1)))
    assert {row.value.split()[1] for row in result.select("operator")} == {"int8"}
    assert kp.plan_of(model).default == "mixed_float16"


def test_mixed_sequential_models_are_exported(exporting, rng, tmp_path):
    """A copy in float32 keeps the inputs' names, and constants that are computed from weights."""
    layers = exporting.layers
    x = rng.normal(50, 20, size=(32, 4)).astype("float32")
    normalize = layers.Normalization()
    normalize.adapt(x)
    body = layers.Dense(8, activation="relu", dtype="mixed_bfloat16")
    model = exporting.Sequential([exporting.Input((4,)), normalize, body, layers.Dense(2, dtype="float32")])
    for precision in ("float32", "int8"):
        kp.export_tflite(model, tmp_path / "model.tflite", precision, x)
        answers = kp.evaluate(tmp_path / "model.tflite", x, model.predict(x, verbose=0), ["mae"])
        assert answers.value("mean_absolute_error") < 0.05


def test_last_layer_is_not_taken_for_the_one_before_it(exporting, rng, tmp_path):
    """What makes an output of the file belongs to its own layer, though the converter drops its name."""
    layers = exporting.layers

    class Sine(layers.Layer):
        def call(self, inputs):
            return tf.math.sin(inputs)

    features = layers.Input((4,), name="features")
    dense = layers.Dense(3, name="body")(features)
    model = exporting.Model(features, [Sine(name="wave")(dense), layers.ReLU(name="ramp")(dense)])
    x = rng.normal(size=(16, 4))
    result = kp.export_tflite(model, tmp_path / "model.tflite", "int8", x)
    assert dict(result.plan.layers) == {"wave": "float32"}
    honoured = kp.PrecisionPlan.deployment("int8", layers={"body": "int8", "ramp": "int8"})
    assert kp.export_tflite(model, tmp_path / "model.tflite", honoured, x).plan.precision_of("body") == "int8"
    with pytest.raises(PlanNotHonouredError, match="Expected the layer 'wave' in int8"):
        kp.export_tflite(
            model, tmp_path / "model.tflite", kp.PrecisionPlan.deployment("int8", layers={"wave": "int8"}), x
        )


def test_recurrent_layers(exporting, rng, tmp_path):
    """A recurrent file answers each sample afresh; a loop stays in float and is said to, where no kernel is fused."""
    layers = exporting.layers
    series = layers.Input((5, 3), name="series")
    x = rng.normal(size=(12, 5, 3)).astype("float32")
    looped = exporting.Model(series, layers.Dense(2, name="head")(layers.LSTM(4, name="memory")(series)))
    unrolled = exporting.Model(series, layers.Dense(2, name="head")(layers.LSTM(4, unroll=True, name="memory")(series)))
    for model, precision in ((looped, "float32"), (unrolled, "int8")):
        kp.export_tflite(model, tmp_path / "model.tflite", precision, x)
        np.testing.assert_allclose(
            kp.edge.predict(tmp_path / "model.tflite", x), model.predict(x, verbose=0), atol=0.05
        )
    result = kp.export_tflite(looped, tmp_path / "model.tflite", "int8", x)
    np.testing.assert_allclose(kp.edge.predict(tmp_path / "model.tflite", x), looped.predict(x, verbose=0), atol=0.05)
    if exporting.__name__ == "keras":  # tf_keras has a fused kernel for it
        assert dict(result.plan.layers) == {"memory": "float32"}
        looped_note = "operator WHILE of layer 'memory' stayed in float32: unroll=True makes integers of a loop"
        assert result.notes[0] == looped_note
        named = kp.PrecisionPlan.deployment("int8", layers={"memory": "int8"})
        with pytest.raises(PlanNotHonouredError, match="Expected the layer 'memory' in int8.*Received: float32"):
            kp.export_tflite(looped, tmp_path / "model.tflite", named, x)


@pytest.mark.parametrize("names", [("a-b", "a.b"), ("größe", "1st"), ("self", "input")])
def test_inputs_of_any_name(exporting, rng, tmp_path, names):
    """Inputs whose names no file can hold, or that become alike, keep apart and are found by their own names."""
    layers = exporting.layers
    try:
        inputs = [layers.Input((width,), name=name) for name, width in zip(names, (2, 3), strict=True)]
    except ValueError:
        pytest.skip("this Keras refuses the name itself")
    model = exporting.Model(inputs, layers.Dense(2)(layers.Concatenate()(inputs)))
    x = {name: rng.normal(size=(8, width)).astype("float32") for name, width in zip(names, (2, 3), strict=True)}
    kp.export_tflite(model, tmp_path / "model.tflite", "int8", x)
    assert len({tensor.name for tensor in kp.edge.inspect(tmp_path / "model.tflite").inputs}) == 2


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict:UserWarning")
def test_dict_of_inputs(exporting, rng, tmp_path):
    """Data are found by the keys of a dict that the model was built with."""
    layers = exporting.layers
    inputs = {"right": layers.Input((2,)), "left": layers.Input((3,))}
    model = exporting.Model(inputs, layers.Dense(2)(layers.Concatenate()([inputs["left"], inputs["right"]])))
    x = {"left": rng.normal(size=(8, 3)), "right": rng.normal(size=(8, 2))}
    kp.export_tflite(model, tmp_path / "model.tflite", "int8", x)
    assert kp.evaluate(model, x, np.zeros(8, int)).value("samples") == 8


def test_inputs_keep_their_names_and_outputs_their_order(exporting, rng, tmp_path):
    """A model with two inputs and two outputs answers as in Keras, whatever order the file has."""
    model = nets.two_inputs(exporting)
    x = {
        "z_image": rng.uniform(size=(12, 12, 12, 1)).astype("float32"),
        "a_table": rng.normal(size=(12, 4)).astype("float32"),
    }
    kp.export_tflite(model, tmp_path / "model.tflite", "float32")
    expected = model.predict([x["z_image"], x["a_table"]], verbose=0)
    for answer, wanted in zip(kp.edge.predict(tmp_path / "model.tflite", x), expected, strict=True):
        np.testing.assert_allclose(answer, wanted, atol=1e-5)
    for given in (x, tuple(x.values()), list(x.values())):
        result = kp.export_tflite(model, tmp_path / "model.tflite", "int8", given)
        assert result.value("calibration_samples") == 12


@pytest.mark.parametrize("name", ["nested", "unnamed"])
def test_operators_are_found_in_nested_and_unnamed_layers(exporting, rng, tmp_path, name):
    """A plan that names every layer, as the file has it, is honoured."""
    build, shape = {"nested": (nets.nested, (8,)), "unnamed": (nets.unnamed, (6, 6, 2))}[name]
    model = build(exporting)
    plan = kp.PrecisionPlan.deployment("float32", layers=dict.fromkeys(kp.layer_paths(model), "int8"))
    data = rng.normal(size=(8, *shape))
    whole = kp.PrecisionPlan.deployment("int8", layers=dict.fromkeys(kp.layer_paths(model), "int8"))
    assert kp.export_tflite(model, tmp_path / "model.tflite", whole, data).plan == kp.PrecisionPlan.deployment("int8")
    named = kp.export_tflite(model, tmp_path / "model.tflite", plan, data)
    assert named.plan == plan
    assert {row.value.split()[1] for row in named.select("operator")} == {"int8", "cast"}


def test_named_layer_that_is_not_honoured(exporting, rng, tmp_path):
    """A layer that the plan names and that has no kernel for its precision is an error; an older file stays."""
    model = with_island(exporting, tf.math.sin)
    path = tmp_path / "model.tflite"
    path.write_bytes(b"older")
    plan = kp.PrecisionPlan.deployment("int8", layers={"island": "int8"})
    with pytest.raises(
        PlanNotHonouredError, match=r"Expected the layer 'island' in int8.*Received: float32 in the file"
    ):
        kp.export_tflite(model, path, plan, rng.uniform(size=(8, 12, 12, 1)))
    assert path.read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["model.tflite"]


def with_island(keras, function):
    """A net with a layer that computes ``function``."""
    layers = keras.layers

    class Island(layers.Layer):
        def call(self, inputs):
            return inputs + function(inputs)

    image = layers.Input((12, 12, 1), name="image")
    x = Island(name="island")(layers.Conv2D(4, 3, name="stem")(image))
    return keras.Model(image, layers.Dense(2, name="head")(layers.Flatten(name="flat")(x)))


def test_operators_that_stay_in_float_are_named_or_refused(exporting, rng, tmp_path):
    """Under the default, a kernel without an integer version is reported with its layer; strict=True refuses it."""
    model = with_island(exporting, tf.math.sin)
    data = rng.uniform(size=(8, 12, 12, 1))
    result = kp.export_tflite(model, tmp_path / "model.tflite", "int8", data)
    assert any(re.fullmatch(r"operator \w+ of layer 'island' stayed in float32", note) for note in result.notes)
    assert dict(result.plan.layers) == {"island": "float32"}
    with pytest.raises(PlanNotHonouredError, match=r"strict=True.*layer 'island' stayed in float32"):
        kp.export_tflite(model, tmp_path / "strict.tflite", "int8", data, strict=True)
    assert not (tmp_path / "strict.tflite").exists()


def test_a_file_is_scored_on_any_form_of_validation_data(exporting, rng, tmp_path):
    """Arrays, arrays with weights, and a dataset of batches give one figure."""
    x, y = nets.images(rng, 24)
    model, dataset = nets.conv(exporting), tf.data.Dataset.from_tensor_slices((x, y)).batch(7)
    scored = {
        kp.export_tflite(model, tmp_path / "model.tflite", "int8", x, validation_data=held).value("accuracy")
        for held in ((x, y), (x, y, np.ones(24)), dataset)
    }
    assert scored == {kp.evaluate(tmp_path / "model.tflite", x, y).value("accuracy")}


BAD = {
    "no data": ({}, DataError, r"Expected a representative dataset.*Received: None"),
    "empty": ({"representative_dataset": np.zeros((0, 12, 12, 1))}, DataError, "Expected at least one sample"),
    "used up": ({"representative_dataset": iter(())}, DataError, "Was a generator used up before"),
    "shape": ({"representative_dataset": np.zeros((4, 12, 1))}, DataError, r"Expected samples of shape \(n, 12, 12, 1\).*Received: \(4, 12, 1\)"),
    "type": ({"representative_dataset": np.full((4, 12, 12, 1), "a")}, DataError, r"Expected numbers \(dtype float32\).*Received: dtype <U1"),
    "count": ({"representative_dataset": (np.zeros((4, 12, 12, 1)),) * 2}, DataError, r"Expected 1 array\(s\).*Received: a tuple of 2"),
    "nan": ({"representative_dataset": np.full((4, 12, 12, 1), np.nan)}, DataError, "Received: 576 values of 576 that are NaN or infinite"),
    "unknown": ({"plan": "int7"}, UnknownPrecisionError, r"float32, float16, int8.*Received: 'int7'. Did you mean"),
    "training": ({"plan": "mixed_float16"}, UnknownPrecisionError, "'mixed_float16' is a training precision: it is for kp.precision"),
    "kind": ({"plan": kp.PrecisionPlan.training("float32")}, PlanKindError, "Expected a deployment plan. Received: a training plan"),
    "layer": ({"plan": kp.PrecisionPlan.deployment("int8", layers={"steam": "int8"})}, UnknownLayerError, "'steam', which it does not have. Did you mean 'stem'"),
    "io": ({"io": "uint16"}, InputError, "Expected io to be 'int8' or 'uint8' or 'float32' for a plan whose default is int8. Received: 'uint16'"),
    "io of float": ({"plan": "float32", "io": "int8"}, InputError, "Expected io to be 'float32' for a plan whose default is float32. Received: 'int8'"),
    "method": ({"calibration": "mean"}, InputError, "Expected a calibration method: auto, minmax, percentile, mse, entropy. Received: 'mean'"),
    "percentile": ({"percentile": 10}, InputError, "Expected a percentile above 50 and up to 100. Received: 10"),
    "engine": ({"engine": "tfmot"}, InputError, "Expected engine to be one of auto, aeq, converter. Received: 'tfmot'"),
    "runtime": ({"runtime": "tfml"}, InputError, "Expected runtime to be one of litert, tflite-runtime, tflm. Received: 'tfml'. Did you mean 'tflm'"),
    "folder": ({"path": "nowhere/model.tflite"}, DestinationError, "whose folder 'nowhere' does not exist"),
    "read-only": ({"path": "/proc/self/model.tflite"}, DestinationError, "refuses new files"),
    "samples alone": ({"validation_data": np.zeros((4, 12, 12, 1))}, DataError, r"Expected validation_data=\(samples, labels\), or a dataset.*Received: ndarray"),
    "no labels": ({"validation_data": (np.zeros((4, 12, 12, 1)), None)}, DataError, "Received: a tuple of 2, without labels"),
    "four": ({"validation_data": ((),) * 4}, DataError, r"Received: a tuple of 4\. To score no file, leave it out"),
    "suffix": ({"path": "model.onnx"}, DestinationError, "Expected a path that ends in '.tflite'"),
}  # fmt: skip


@pytest.mark.parametrize(("wrong", "kind", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_before_any_work(exporting, tmp_path, monkeypatch, wrong, kind, message):
    """Each wrong argument has its own error, no conversion is begun, and no file is left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keras_precision.quantization.float_model.convert", None)
    arguments = {"path": "model.tflite", "plan": "int8"} | wrong
    with pytest.raises(kind, match=message):
        kp.export_tflite(nets.conv(exporting), **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (nets.subclassed, "Received: the subclassed model 'written'"),
        (lambda keras: keras.Sequential([keras.layers.Dense(2)]), "Expected a built model"),
        (lambda keras: keras.layers.Dense(2), "Expected a Keras model. Received: the layer"),
        (lambda keras: "model.keras", "Received: an object of type builtins.str"),
    ],
)
def test_models_that_cannot_be_exported(exporting, tmp_path, build, message):
    """Subclassed and unbuilt models, and things that are no model, are refused."""
    with pytest.raises(ModelError, match=message):
        kp.export_tflite(build(exporting), tmp_path / "model.tflite", "float32")


def test_free_sizes_are_refused(exporting, tmp_path):
    """A model whose input size is free needs a fixed one."""
    layers = exporting.layers
    image = layers.Input((None, None, 1), name="image")
    model = exporting.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(image)))
    with pytest.raises(
        ModelError, match=r"Expected inputs of a fixed size. Received: 'image' of shape \(n, None, None, 1\)"
    ):
        kp.export_tflite(model, tmp_path / "model.tflite", "float32")


def test_failed_conversion_names_the_layer(exporting, tmp_path):
    """An operation without a kernel is named with its layer; the cause is kept, and no file is left."""
    model = with_island(exporting, tf.math.erf)
    with pytest.raises(
        ExportError, match=r"to float32. Received: no kernel in TensorFlow Lite for Erf of layer 'island'"
    ) as caught:
        kp.export_tflite(model, tmp_path / "model.tflite", "float32")
    assert type(caught.value.__cause__).__name__ == "ConverterError"
    assert not list(tmp_path.iterdir())


def test_nothing_is_printed(exporting, tmp_path, capfd):
    """The chatter of TensorFlow and its converter does not reach the user."""
    kp.export_tflite(nets.mlp(exporting), tmp_path / "model.tflite", "float16")
    heard = capfd.readouterr()
    assert (heard.out, heard.err) == ("", "")


def test_a_conversion_collects_no_garbage_of_before(exporting, tmp_path):
    """The converter collects each time: where a process holds much, that would take longer than the conversion."""
    model = nets.mlp(exporting)
    frozen = []

    def note(phase, about):
        if phase == "start" and about["generation"] == 2:
            frozen.append(gc.get_freeze_count())

    gc.callbacks.append(note)
    try:
        kp.export_tflite(model, tmp_path / "model.tflite", "float32")
    finally:
        gc.callbacks.remove(note)
    assert max(frozen) > 0
    assert gc.get_freeze_count() == 0
