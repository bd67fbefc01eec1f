"""What each operator of a file becomes under a plan, and what a runtime is spared."""

import importlib

import nets
import numpy as np
import pytest
import tensorflow as tf

import keras_precision as kp
from keras_precision._adapters.model_view import ModelView
from keras_precision.core.errors import DataError, DestinationError, ExportError, FileFormatError, PlanError
from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.quantization.fidelity import check_equivalence
from keras_precision.quantization.float_model import float_file
from keras_precision.quantization.foreign_ranges import foreign_ranges
from keras_precision.runtimes.card import card
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer
from keras_precision.runtimes.tflite.kernel_support import unsupported_operators


@pytest.fixture(scope="module")
def keras():
    """Keras, of which these tests need one stack alone."""
    import keras

    return keras


@pytest.fixture(scope="module")
def measured(keras):
    """A net with spread weights, images, and the calibration on them."""
    keras.utils.set_random_seed(3)
    model = nets.conv(keras)
    x, y = nets.images(np.random.default_rng(2), 64)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=4, batch_size=16, verbose=0)
    return model, x, kp.calibrate(model, x)


MIXES = {
    "int8": ("int8", {}),
    "int16x8": ("int16x8", {}),
    "int4": ("int4", {}),
    "int8_dynamic": ("int8_dynamic", {}),
    "ends in float": ("int8", {"stem": "float32", "head": "float32"}),
    "one in int4": ("int8", {"pointwise": "int4"}),
    "one in int16": ("int8", {"head": "int16x8"}),
    "float with one in int8": ("float32", {"pointwise": "int8"}),
    "halves": ("float16", {"head": "float32"}),
    "dynamic with float": ("int8_dynamic", {"head": "float32"}),
    "all at once": ("int8", {"stem": "float32", "pointwise": "int4", "head": "int16x8"}),
}


@pytest.mark.parametrize(("default", "layers"), MIXES.values(), ids=MIXES)
def test_any_mix_is_honoured_and_answers(measured, tmp_path, default, layers):
    """The realised plan names each layer as asked, no range is foreign, and the answers are near the model's."""
    model, x, calibration = measured
    plan = kp.PrecisionPlan.deployment(default, layers=layers)
    result = kp.export_tflite(model, tmp_path / "model.tflite", plan, calibration)
    assert {path: result.plan.precision_of(path) for path in layers} == layers
    needs_ranges = {"int8", "int16x8", "int4"} & {default, *layers.values()}
    assert [row.value for row in result.select("foreign_ranges")] == [0] * bool(needs_ranges)
    answers = kp.edge.predict(tmp_path / "model.tflite", x)
    loose = default == "int4" or "int4" in layers.values()
    assert np.abs(answers - model.predict(x, verbose=0)).max() < (0.4 if loose else 0.12)


def test_int4_weights_are_packed(measured, tmp_path):
    """Convolutions and dense layers have int4 weights, the depthwise one int8, and the file is smaller."""
    model, _, calibration = measured
    narrow = kp.export_tflite(model, tmp_path / "4.tflite", "int4", calibration)
    wide = kp.export_tflite(model, tmp_path / "8.tflite", "int8", calibration)
    kernels = {row.value.split()[0]: row.value.split()[1] for row in narrow.select("operator")}
    assert kernels["CONV_2D"] == "int4"
    assert kernels["DEPTHWISE_CONV_2D"] == "int8"
    assert narrow.value("size_bytes") < wide.value("size_bytes") + 512


def test_layers_that_are_one_operator_have_one_precision(measured, tmp_path):
    """A plan that wants a convolution and its activation apart is refused before it is quantized."""
    model, _, calibration = measured
    plan = kp.PrecisionPlan.deployment("int8", layers={"stem": "float32", "stem_relu": "int16x8"})
    with pytest.raises(PlanError, match=r"one operator \(CONV_2D\).*'stem_relu' in int16x8, 'stem' in float32"):
        kp.export_tflite(model, tmp_path / "model.tflite", plan, calibration)
    assert not list(tmp_path.iterdir())


REFUSED = {
    "dynamic on tflite-runtime": ("int8_dynamic", {}, "tflite-runtime", r"computes dense layers in int8_dynamic wrongly.*\(layer 'head'\)"),
    "int4 on tflite-runtime": ("int4", {}, "tflite-runtime", r"has no dense layers with int4 weights \(layer 'head'\)"),
    "16 after 8 on tflite-runtime": ("int8", {"head": "int16x8"}, "tflite-runtime", "cannot convert int8 to int16"),
    "dynamic on tflm": ("int8_dynamic", {}, "tflm", r"has no kernels of floats with int8 weights"),
    "float16 on tflm": ("float16", {}, "tflm", "cannot widen float16 weights"),
    "int4 on tflm": ("int4", {}, "tflm", "has no dense layers with int4 weights"),
}  # fmt: skip


@pytest.mark.parametrize(("default", "layers", "runtime", "message"), REFUSED.values(), ids=REFUSED)
def test_what_a_runtime_cannot_run_is_refused(measured, tmp_path, default, layers, runtime, message):
    """The reason and the layer are told, and no file is written; LiteRT takes the same plan."""
    model, _, calibration = measured
    plan = kp.PrecisionPlan.deployment(default, layers=layers)
    with pytest.raises(PlanError, match=rf"Expected a file that {runtime} runs.*{message}"):
        kp.export_tflite(model, tmp_path / "model.tflite", plan, calibration, runtime=runtime)
    assert not list(tmp_path.iterdir())
    kp.export_tflite(model, tmp_path / "model.tflite", plan, calibration, runtime="litert")


@pytest.mark.parametrize("runtime", ["tflite-runtime", "tflm"])
@pytest.mark.parametrize("plan", ["float32", "int8", "int16x8"])
def test_what_every_runtime_runs_is_written(measured, tmp_path, plan, runtime):
    """Plain plans pass, and the file has no obstacle."""
    model, _, calibration = measured
    kp.export_tflite(model, tmp_path / "model.tflite", plan, calibration, runtime=runtime)
    assert list(unsupported_operators(kp.edge.inspect(tmp_path / "model.tflite"), runtime)) == []


def test_kernels_that_tflm_does_not_register_are_refused(keras, rng, tmp_path):
    """A kernel that microcontrollers lack is named with its layer."""
    image = keras.Input((4, 4, 4, 1), name="image")
    flat = keras.layers.Flatten(name="flat")(keras.layers.Conv3D(2, 2, name="volume")(image))
    model = keras.Model(image, keras.layers.Dense(2, name="head")(flat))
    with pytest.raises(PlanError, match=r"tflm has no kernel CONV_3D \(layer 'volume'\)"):
        kp.export_tflite(model, tmp_path / "model.tflite", "float32", runtime="tflm")


def test_an_older_file_may_be_kept(measured, tmp_path):
    """``overwrite=False`` refuses a path that exists, before any work, and leaves the file."""
    path = tmp_path / "model.tflite"
    path.write_bytes(b"older")
    with pytest.raises(DestinationError, match=r"Expected a path that is free.*overwrite=True"):
        kp.export_tflite(measured[0], path, "int8", overwrite=False)
    assert path.read_bytes() == b"older"


def test_the_file_tells_how_it_was_made(measured, tmp_path):
    """The card inside has plan, calibration, versions and scores; a file of others has none."""
    model, x, calibration = measured
    path = tmp_path / "model.tflite"
    plan = kp.PrecisionPlan.deployment("int8", layers={"head": "float32"})
    result = kp.export_tflite(model, path, plan, calibration, calibration="mse", validation_data=(x, np.zeros(64, int)))
    told = card(path)
    assert told.plan == result.plan == plan
    assert told.value("calibration_samples") == 64
    assert told.value("calibration_method") == "mse"
    assert told.value("calibration_maximum") == pytest.approx(x.max())
    assert told.value("agreement") == result.value("agreement") > 0.9
    assert told.environment.versions["keras"]
    path.write_bytes(float_file(ModelView.of(model)).content)
    with pytest.raises(FileFormatError, match="expected a file that this package exported, with a card inside"):
        card(path)


def test_foreign_ranges_are_counted(measured, tmp_path):
    """A scale that none of the ranges gives is found, by the tensor's name."""
    model, _, calibration = measured
    kp.export_tflite(model, tmp_path / "model.tflite", "int8", calibration, calibration="mse")
    content = (tmp_path / "model.tflite").read_bytes()
    ranges = calibration.ranges("mse")
    assert foreign_ranges(content, ranges) == []
    halved = {name: (low / 2, high / 2) for name, (low, high) in ranges.items()}
    assert len(foreign_ranges(content, halved)) >= 4


def test_a_float_file_that_disagrees_with_its_model_is_refused(keras, tmp_path):
    """A layer that is random at inference is caught before quantization is blamed for it."""

    class Noise(keras.layers.Layer):
        def call(self, inputs):
            return inputs + 5 * tf.random.normal((4,))

    features = keras.Input((4,), name="features")
    model = keras.Model(features, Noise(name="noise")(features))
    with pytest.raises(ExportError, match=r"or at random: check custom layers"):
        kp.export_tflite(model, tmp_path / "model.tflite", "float32")
    assert not list(tmp_path.iterdir())


def test_an_integer_export_checks_its_float_file_first(measured, keras, rng, tmp_path):
    """The same holds before anything is quantized."""

    class Noise(keras.layers.Layer):
        def call(self, inputs):
            return inputs + 5 * tf.random.normal((4,))

    features = keras.Input((4,), name="features")
    model = keras.Model(features, Noise(name="noise")(keras.layers.Dense(4)(features)))
    with pytest.raises(ExportError, match="Expected the float file of"):
        kp.export_tflite(model, tmp_path / "model.tflite", "int8", rng.normal(size=(8, 4)))


def test_faithful_files_pass(measured):
    """The float file of a net answers as the net does; that of other weights does not."""
    model, x, calibration = measured
    check_equivalence(ModelView.of(model), calibration.float_file.content, {"image": x})
    graph = Flatbuffer(calibration.float_file.content)
    operator = next(each for each in graph.operators if graph.kernel(each) == "FULLY_CONNECTED")
    graph.set_constant(int(operator.inputs[1]), -graph.constant(int(operator.inputs[1])))
    with pytest.raises(ExportError, match="output 0 is off by"):
        check_equivalence(ModelView.of(model), graph.content(), {"image": x})


def test_engines_agree_and_refuse(measured, tmp_path):
    """Both engines write int8 from the same ranges; the converter refuses what it cannot mix."""
    model, x, calibration = measured
    for engine in ("aeq", "converter"):
        result = kp.export_tflite(model, tmp_path / f"{engine}.tflite", "int8", calibration, engine=engine)
        assert result.value("engine") == engine
        assert result.value("foreign_ranges") == 0
    kept = kp.PrecisionPlan.deployment("int8", layers={"head": "float32"})
    assert kp.export_tflite(model, tmp_path / "kept.tflite", kept, calibration, engine="converter").plan == kept
    answers = [kp.edge.predict(tmp_path / f"{engine}.tflite", x) for engine in ("aeq", "converter")]
    np.testing.assert_allclose(*answers, atol=0.05)
    with pytest.raises(ExportError, match=r"int8 or float32.*Received: int4.*engine='aeq'"):
        kp.export_tflite(model, tmp_path / "int4.tflite", "int4", calibration, engine="converter")


def test_auto_takes_the_engine_that_leaves_less_in_float(keras, rng, tmp_path):
    """Where AI Edge Quantizer has no integer form of an operator and the converter has one, that is used."""
    features = keras.Input((8,), name="features")
    x = keras.layers.Dense(8, name="body")(features)
    x = keras.layers.Lambda(lambda values: -values, name="minus", output_shape=(8,))(x)
    model = keras.Model(features, keras.layers.Dense(2, name="head")(x))
    data = rng.normal(size=(16, 8)).astype("float32")
    by_engine = {
        engine: kp.export_tflite(model, tmp_path / "model.tflite", "int8", data, engine=engine)
        for engine in ("aeq", "converter", "auto")
    }
    floats = {engine: len(result.notes) for engine, result in by_engine.items()}
    assert floats["auto"] == min(floats.values())


def test_flatbuffer_edits_touch_what_they_name_alone(measured):
    """A constant that is replaced leaves others that shared its bytes; metadata of the same name are replaced."""
    graph = Flatbuffer(measured[2].float_file.content)
    before = {number: graph.constant(number) for operator in graph.operators for number in map(int, operator.inputs)}
    chosen = next(number for number, values in before.items() if values is not None)
    graph.set_constant(chosen, before[chosen] + 1)
    graph.set_metadata("note", b"one")
    graph.set_metadata("note", b"two")
    again = Flatbuffer(graph.content())
    for number, values in before.items():
        if values is not None:
            np.testing.assert_array_equal(again.constant(number), values + 1 if number == chosen else values)
    assert dict(again.metadata())["note"] == b"two"


def test_weights_are_not_written_byte_by_byte(keras, monkeypatch, rng):
    """A larger file, which the quantizer lays out otherwise, is packed in whole arrays: bytes take Python seconds."""
    from flatbuffers.builder import Builder

    model = keras.Sequential([keras.Input((512,)), keras.layers.Dense(1024), keras.layers.Dense(2)])
    calibration = kp.calibrate(model, rng.normal(size=(16, 512)).astype("float32"))
    calls = []
    pack = Builder.PrependUint8
    monkeypatch.setattr(Builder, "PrependUint8", lambda builder, value: (calls.append(value), pack(builder, value))[1])
    made = PlanCompiler(calibration)(kp.PrecisionPlan.deployment("int8"))
    assert len(made) > 512 * 1024
    assert len(calls) < 512 * 1024


def test_what_a_quantizer_raises_is_told(tmp_path, monkeypatch):
    """Errors of both quantizers and of the conversion have the message of their cause, and leave no file."""
    import keras

    def refuse(*arguments, **options):
        raise RuntimeError("no such kernel")

    model, x = nets.mlp(keras), np.ones((8, 8), "float32")
    monkeypatch.setattr("ai_edge_quantizer.quantizer.Quantizer", refuse)
    monkeypatch.setattr(importlib.import_module("tensorflow.lite.python.convert"), "mlir_quantize", refuse)
    for engine, name in (("aeq", "AI Edge Quantizer"), ("converter", "TFLiteConverter's quantizer")):
        with pytest.raises(ExportError, match=f"Expected {name} to quantize the file. Received: RuntimeError: no such"):
            kp.export_tflite(model, tmp_path / "model.tflite", "int8", x, engine=engine)
    monkeypatch.setattr("keras_precision.quantization.conversion._traced", lambda *arguments: mlp_of_nothing())
    with pytest.raises(DataError, match="nothing"):
        kp.export_tflite(model, tmp_path / "model.tflite", "float32")
    assert list(tmp_path.iterdir()) == []


def mlp_of_nothing():
    """Refuse, as a part of a conversion may."""
    raise DataError("nothing")
