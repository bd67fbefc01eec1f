"""export_onnx: the file answers as the model does, with the ranges of the calibration, or is not written."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import (
    DataError,
    DestinationError,
    ExportError,
    FileFormatError,
    InputError,
    MissingExtraError,
    ModelError,
    PlanError,
    PlanNotHonouredError,
    UnknownPrecisionError,
)
from keras_precision.core.result import Measurement
from keras_precision.export.onnx import export as onnx_export
from keras_precision.export.onnx import graph as onnx_graph
from keras_precision.runtimes.card import card
from keras_precision.runtimes.onnx import OnnxSession, open_onnx, read_onnx
from keras_precision.runtimes.registry import open_runtime

onnx = pytest.importorskip("onnx", reason='pip install "keras-precision[onnx]"')
pytest.importorskip("onnxruntime", reason='pip install "keras-precision[onnx]"')
pytest.importorskip("tf2onnx", reason='pip install "keras-precision[onnx]"')


class Trained(NamedTuple):
    """A trained net, its data, and its calibration."""

    model: Any
    x: np.ndarray
    y: np.ndarray
    calibration: Any


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A convolutional net that tells images apart."""
    import keras

    keras.utils.set_random_seed(0)
    model = nets.conv(keras)
    x, y = nets.images(np.random.default_rng(0), 256)
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=8, epochs=12, verbose=0)  # enough for the statistics of the normalization
    return Trained(model, x, y, kp.calibrate(model, x[:64]))


def constants(path: Path) -> dict[str, np.ndarray]:
    """Return the constants of a file."""
    return {each.name: onnx.numpy_helper.to_array(each) for each in read_onnx(path).graph.initializer}


@pytest.mark.every_stack
def test_a_float_file_answers_as_the_model_does(stack: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    """Models of every backend become files with the model's own names and order of inputs and outputs."""
    model = nets.two_inputs(stack.keras)
    x = [rng.random((3, 12, 12, 1)).astype("float32"), rng.random((3, 4)).astype("float32")]
    result = kp.export_onnx(model, tmp_path / "model.onnx", "float32")
    session = open_runtime(tmp_path / "model.onnx")
    assert [tensor.name for tensor in session.model.inputs] == ["z_image", "a_table"]
    assert [tensor.shape for tensor in session.model.outputs] == [(1, 3), (1, 1)]
    answers = session.predict(x)
    expected = model.predict(x, verbose=0)
    for answer, wanted in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer, np.asarray(wanted), atol=1e-5)
    assert result.plan == kp.PrecisionPlan.deployment("float32")
    assert result.notes == ()
    assert result.value("size_bytes") == (tmp_path / "model.onnx").stat().st_size


def test_ranges_are_those_of_the_calibration(trained: Trained, tmp_path: Path) -> None:
    """The scale of the input is its range over 255, whatever method chose it; weights are symmetric by channel.

    They have 7 bits, which no processor adds up wrongly, unless all 8 are asked for.
    """
    for method, bits in (("minmax", 7), ("percentile", 8)):
        path = tmp_path / f"{method}.onnx"
        kp.export_onnx(
            trained.model,
            path,
            "int8",
            trained.calibration,
            calibration=method,
            percentile=99.0,
            reduce_range=bits == 7,
        )
        low, high = next(iter(trained.calibration.ranges(method, percentile=99.0).values()))
        held = constants(path)
        casts = [node for node in read_onnx(path).graph.node if node.op_type == "QuantizeLinear"]
        of_input = next(node for node in casts if "stem" in node.input[0] or node.input[0] == "image")
        assert held[of_input.input[1]] == pytest.approx((high - low) / 255, rel=1e-5)
        weights = {name: values for name, values in held.items() if values.dtype == np.int8 and values.ndim == 4}
        assert len(weights) == 3
        for name, values in weights.items():
            scale = held[name.replace("_quantized", "_scale")]
            zero = held[name.replace("_quantized", "_zero_point")]
            assert scale.shape == (values.shape[0],)  # one for each output channel
            assert not zero.any()
            assert set(np.abs(values).reshape(len(values), -1).max(axis=1)) <= ({63, 64} if bits == 7 else {126, 127})


def test_an_int8_file_scores_as_the_model(trained: Trained, tmp_path: Path) -> None:
    """The accuracy is within a point, the size below, and the result says what computes in what."""
    kp.export_onnx(trained.model, tmp_path / "float.onnx", "float32")
    result = kp.export_onnx(
        trained.model, tmp_path / "m.onnx", "int8", trained.x[:64], validation_data=(trained.x, trained.y)
    )
    expected = kp.evaluate(trained.model, trained.x, trained.y).value("accuracy")
    assert expected > 0.9
    assert result.value("accuracy") >= expected - 0.01
    assert result.value("agreement") >= 0.98
    assert result.value("calibration_samples") == 64
    assert result.value("operator_count", "Conv int8") == 3
    assert result.plan.default == "int8"
    assert dict(result.plan.layers) == {"pool": "float32"}  # ONNX Runtime has no integer kernel of a mean
    assert any("ReduceMean of layer 'pool'" in note for note in result.notes)
    assert "onnxruntime" in result.environment.backend
    timed = kp.benchmark(tmp_path / "m.onnx", trained.x, min_calls=5, min_seconds=0.01)
    assert timed.value("latency_ms") > 0


def test_a_float16_file_is_half_as_large(tmp_path: Path) -> None:
    """Weights and operators are float16, inputs and outputs stay float32."""
    import keras

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(512, "relu"), keras.layers.Dense(3)])
    sizes = [
        kp.export_onnx(model, tmp_path / f"{plan}.onnx", plan).value("size_bytes") for plan in ("float32", "float16")
    ]
    assert sizes[1] < 0.6 * sizes[0]
    opened = OnnxSession(tmp_path / "float16.onnx").model
    assert {operator.precision for operator in opened.operators} == {"float16", "cast"}
    assert [tensor.dtype for tensor in (*opened.inputs, *opened.outputs)] == ["float32", "float32"]


def test_a_layer_stays_in_float_if_the_plan_says_so(trained: Trained, tmp_path: Path) -> None:
    """The operators of named layers are float, those of the others int8."""
    plan = kp.PrecisionPlan.deployment("int8", layers={"depthwise": "float32", "head": "float32"})
    result = kp.export_onnx(trained.model, tmp_path / "model.onnx", plan, trained.calibration)
    assert result.plan.precision_of("depthwise") == result.plan.precision_of("head") == "float32"
    assert result.plan.precision_of("stem") == result.plan.precision_of("pointwise") == "int8"
    assert result.value("operator_count", "Conv float32") == 1
    assert result.value("operator_count", "Conv int8") == 2
    assert result.value("operator_count", "Gemm float32") == 1


def test_strict_refuses_what_stays_in_float(trained: Trained, tmp_path: Path) -> None:
    """With strict, and for a layer that the plan names, an operator without an integer kernel is an error."""
    named = kp.PrecisionPlan.deployment("float32", layers={"pool": "int8"})
    with pytest.raises(PlanNotHonouredError, match=r"'pool' in int8.*Received: float32"):
        kp.export_onnx(trained.model, tmp_path / "model.onnx", named, trained.calibration)
    with pytest.raises(PlanNotHonouredError, match=r"strict=True.*ReduceMean"):
        kp.export_onnx(trained.model, tmp_path / "model.onnx", "int8", trained.calibration, strict=True)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_normalization_stays_in_float_as_a_whole(tmp_path: Path) -> None:
    """The layers around it are int8; GELU has the operator that ONNX has for it."""
    import keras

    keras.utils.set_random_seed(0)
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(20, 16, name="embed")(tokens)
    x = keras.layers.LayerNormalization(name="norm")(
        keras.layers.Add(name="sum")([x, keras.layers.Dense(16, name="mix")(x)])
    )
    x = keras.layers.Dense(32, activation="gelu", name="wide")(x)
    model = keras.Model(tokens, keras.layers.Dense(2, name="head")(keras.layers.Flatten(name="flat")(x)))
    data = np.random.default_rng(0).integers(0, 20, (32, 6)).astype("int32")
    result = kp.export_onnx(model, tmp_path / "model.onnx", "int8", data)
    assert result.plan.precision_of("norm") == "float32"
    assert {result.plan.precision_of(path) for path in ("mix", "head", "sum")} == {"int8"}
    session = OnnxSession(tmp_path / "model.onnx")
    of_norm = [operator for operator in session.model.operators if any("norm" in name for name in operator.tensors[:1])]
    assert len(of_norm) > 4
    assert {operator.precision for operator in of_norm} <= {"float32", "index"}
    assert any(operator.kernel == "Gelu" for operator in session.model.operators)
    expected = model.predict(data, verbose=0)
    np.testing.assert_allclose(session.predict(data), expected, atol=0.05 * np.abs(expected).max())


def test_an_operator_that_onnx_lacks_is_named_with_its_layer(tmp_path: Path) -> None:
    """The message has the operator and the Keras layer, and no file is written."""
    import keras

    class Spectrum(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return keras.ops.rfft(inputs)[0]

    model = keras.Sequential([keras.Input((8,)), Spectrum(name="spectrum"), keras.layers.Dense(2)])
    with pytest.raises(ExportError, match=r"no counterpart of \w+ of layer 'spectrum'"):
        kp.export_onnx(model, tmp_path / "model.onnx", "float32")
    assert list(tmp_path.iterdir()) == []


def masked(keras: Any) -> Any:
    """A net that skips the tokens that are 0."""
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(9, 4, mask_zero=True, name="embed")(tokens)
    return keras.Model(tokens, keras.layers.Dense(2, name="head")(keras.layers.LSTM(6, name="memory")(x)))


def series(layer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what builds a net of a recurrent layer over five steps."""

    def build(keras: Any) -> Any:
        steps = keras.Input((5, 4), name="steps")
        x = keras.layers.Flatten(name="flat")(layer(keras.layers)(steps))
        return keras.Model(steps, keras.layers.Dense(2, name="head")(x))

    return build


@pytest.mark.parametrize(
    "build",
    [
        series(lambda layers: layers.GRU(6, name="memory")),
        series(lambda layers: layers.Bidirectional(layers.LSTM(6, return_sequences=True), name="memory")),
        masked,
    ],
    ids=["GRU", "LSTM both ways", "masked"],
)
def test_a_loop_runs_and_stays_in_float(build: Callable[[Any], Any], tmp_path: Path, rng: np.random.Generator) -> None:
    """A recurrent layer that is not unrolled answers as the model, and int8 says how to make integers of it."""
    import keras

    keras.utils.set_random_seed(0)
    model = build(keras)
    x = rng.integers(0, 9, (16, 5)).astype("int32") if build is masked else rng.random((16, 5, 4)).astype("float32")
    kp.export_onnx(model, tmp_path / "float.onnx", "float32")
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(OnnxSession(tmp_path / "float.onnx").predict(x), expected, atol=1e-5)
    result = kp.export_onnx(model, tmp_path / "model.onnx", "int8", x)
    session = OnnxSession(tmp_path / "model.onnx")
    assert any(operator.kernel == "Loop" for operator in session.model.operators)
    np.testing.assert_allclose(session.predict(x), expected, atol=0.05 * np.abs(expected).max())
    assert result.plan.precision_of("memory") == "float32"
    assert "operator Loop of layer 'memory' stayed in float32: unroll=True makes integers of a loop" in result.notes


def test_a_loop_that_a_plan_names_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    """What was asked for by name cannot stay in float."""
    import keras

    model = series(lambda layers: layers.GRU(6, name="memory"))(keras)
    x = rng.random((16, 5, 4)).astype("float32")
    wanted = kp.PrecisionPlan.deployment("float32", layers={"memory": "int8"})
    with pytest.raises(PlanNotHonouredError, match=r"'memory' in int8.*build it with unroll=True, or give it another"):
        kp.export_onnx(model, tmp_path / "other.onnx", wanted, x)
    assert not (tmp_path / "other.onnx").exists()


def test_an_unrolled_layer_becomes_integer(tmp_path: Path, rng: np.random.Generator) -> None:
    """What the message says is so."""
    import keras

    model = series(lambda layers: layers.GRU(6, unroll=True, name="memory"))(keras)
    result = kp.export_onnx(model, tmp_path / "model.onnx", "int8", rng.random((16, 5, 4)).astype("float32"))
    assert not any(row.subject.startswith("Loop") for row in result.select("operator_count"))
    assert any("int8" in row.subject for row in result.select("operator_count"))


def test_a_file_says_how_it_was_made(trained: Trained, tmp_path: Path) -> None:
    """The card has plan, calibration, input range and scores, and the file answers as it did before."""
    plan = kp.PrecisionPlan.deployment("int8", layers={"head": "float32"})
    path = tmp_path / "model.onnx"
    result = kp.export_onnx(
        trained.model, path, plan, trained.calibration, calibration="minmax", validation_data=(trained.x, trained.y)
    )
    told = card(path)
    assert told.plan == result.plan
    assert told.value("calibration_method") == "minmax"
    assert told.value("calibration_maximum") == pytest.approx(trained.x[:64].max())
    assert told.value("accuracy") == result.value("accuracy")
    assert told.environment.versions == result.environment.versions
    assert result.value("size_bytes") == path.stat().st_size
    assert told.notes == result.notes
    foreign = read_onnx(path)
    del foreign.metadata_props[:]
    path.write_bytes(foreign.SerializeToString())
    with pytest.raises(FileFormatError, match=r"a card inside. Received: one without\. Export it again"):
        card(path)


def test_a_card_that_changes_the_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is another one with its card inside is not written."""
    import keras

    from keras_precision.export.onnx.export import OnnxToolchain

    monkeypatch.setattr(OnnxToolchain, "inscribe", lambda self, path, text: None)
    with pytest.raises(ExportError, match=r"the same operators with a card inside"):
        kp.export_onnx(nets.mlp(keras), tmp_path / "model.onnx", "float32")
    assert list(tmp_path.iterdir()) == []


def free_size(keras: Any) -> Any:
    """A net that takes series of any length."""
    return keras.Sequential([keras.Input((None, 4)), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(2)])


@pytest.mark.parametrize(
    ("build", "plan", "keywords", "error", "message"),
    [
        (free_size, "float32", {}, ModelError, r"Expected inputs of a fixed size.*\(n, None, 4\)"),
        (nets.subclassed, "float32", {}, ModelError, r"Expected"),
        (
            nets.mlp,
            "int4",
            {},
            UnknownPrecisionError,
            r"'int4'\. What each format has: tflite: .*onnx: float32, float16, int8;",
        ),
        (nets.mlp, "int9", {}, UnknownPrecisionError, r"int9"),
        (nets.mlp, "int8", {}, DataError, r"Expected"),
        (nets.mlp, "int8", {"target": "tensorflow"}, InputError, r"onnxruntime, tensorrt.*Received: 'tensorflow'"),
        (nets.mlp, "int8", {"calibration": "guess"}, InputError, r"Received: 'guess'"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    build: Callable[[Any], Any],
    plan: str,
    keywords: dict[str, Any],
    error: type[Exception],
    message: str,
    tmp_path: Path,
) -> None:
    """Each refusal says what was expected, and leaves nothing behind."""
    import keras

    with pytest.raises(error, match=message):
        kp.export_onnx(build(keras), tmp_path / "model.onnx", plan, **keywords)
    assert list(tmp_path.iterdir()) == []


def test_a_mix_that_one_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    """int8 and float32 mix, float16 does not."""
    import keras

    plan = kp.PrecisionPlan.deployment("int8", layers={"head": "float16"})
    with pytest.raises(PlanError, match=r"int8 and float32, or one precision.*Received: float16, int8"):
        kp.export_onnx(nets.mlp(keras), tmp_path / "model.onnx", plan)


def test_destinations_are_checked(tmp_path: Path) -> None:
    """A wrong ending, and a file that must not be replaced, are refused before any work."""
    import keras

    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(DestinationError, match=r"ends in '\.onnx'"):
        kp.export_onnx(nets.mlp(keras), tmp_path / "model.tflite", "float32")
    with pytest.raises(DestinationError, match=r"overwrite=True"):
        kp.export_onnx(nets.mlp(keras), tmp_path / "model.onnx", "float32", overwrite=False)
    assert (tmp_path / "model.onnx").read_text() == "mine"
    kp.export_onnx(nets.mlp(keras), tmp_path / "model.onnx", "float32")
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("module", ["onnx", "onnxruntime", "tf2onnx"])
def test_a_missing_package_is_named(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the pip line of the extra."""
    import sys

    import keras

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"'{module}'.*pip install \"keras-precision\[onnx\]\""):
        kp.export_onnx(nets.mlp(keras), tmp_path / "model.onnx", "float32")


def convert_with(monkeypatch: pytest.MonkeyPatch, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Let tf2onnx change all constants in floats."""
    convert = onnx_graph._tf2onnx().from_tflite

    def wrong(*args: Any, **keywords: Any) -> Any:
        model, rest = convert(*args, **keywords)
        for constant in model.graph.initializer:
            values = onnx.numpy_helper.to_array(constant)
            if values.dtype == np.float32:
                constant.CopyFrom(onnx.numpy_helper.from_array(change(values).astype("float32"), constant.name))
        return model, rest

    monkeypatch.setattr("tf2onnx.convert.from_tflite", wrong)


@pytest.mark.parametrize("export", [kp.export_onnx, kp.export_openvino])
@pytest.mark.parametrize("plan", ["float32", "int8"])
def test_a_graph_that_predicts_otherwise_is_not_written(
    export: Callable[..., kp.Result], plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversion that changes the model's outputs by one in ten thousand is found, named, and not written."""
    import keras

    if export is kp.export_openvino:
        pytest.importorskip("openvino", reason='pip install "keras-precision[openvino]"')
    convert_with(monkeypatch, lambda values: values * 1.0001)
    x = np.random.default_rng(0).random((16, 8)).astype("float32")
    path = tmp_path / ("model.onnx" if export is kp.export_onnx else "model.xml")
    with pytest.raises(ExportError, match=r"Expected tf2onnx( and OpenVINO)? to convert 'mlp' within 1e-05"):
        export(nets.mlp(keras), path, plan, x)
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_is_judged_on_real_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that samples between 0 and 1 never reach is found to be wrong on the representative data that reach it."""
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.ReLU(max_value=6.0), keras.layers.Dense(2)])
    convert_with(monkeypatch, lambda values: np.where(values == 6.0, 8.0, values))
    path = tmp_path / "model.onnx"
    kp.export_onnx(model, path, "float32")
    path.unlink()
    with pytest.raises(ExportError, match=r"Expected tf2onnx to convert"):
        kp.export_onnx(model, path, "float32", np.full((4, 3), 7.0, "float32"))
    assert not path.exists()


def heads(keras: Any) -> Any:
    """Return a model with a Dense layer behind each kind of layer that TensorFlow Lite flattens into its product."""
    layers = keras.layers
    image, series = keras.Input((8, 8, 4), name="image"), keras.Input((8, 3), name="series")
    fronts = [
        layers.AveragePooling2D(8)(image),
        layers.MaxPooling2D(4)(image),
        layers.GlobalMaxPooling2D(keepdims=True)(image),
        layers.GlobalAveragePooling2D()(image),
        layers.DepthwiseConv2D(3, activation="relu")(image),
        layers.Conv2D(3, 3, activation="relu6")(image),
        image,
        layers.Conv1D(4, 3, activation="relu")(series),
        layers.AveragePooling1D(8)(series),
        layers.Dense(5, activation="relu")(series),
    ]
    flat = [layers.Flatten()(front) for front in fronts]
    activations = ["softmax", None, "relu", "tanh", None, "sigmoid", "relu6", None, "softmax", "relu"]
    outputs = [layers.Dense(6, activation)(front) for front, activation in zip(flat, activations, strict=True)]
    outputs.append(layers.Dense(2)(layers.Dense(4, "relu", use_bias=False)(flat[0])))
    model = keras.Model([image, series], outputs)
    random = np.random.default_rng(0)
    for number, layer in enumerate(layer for layer in model.layers if getattr(layer, "bias", None) is not None):
        layer.bias.assign(random.normal(size=layer.bias.shape) * (0.5 if number % 2 else 0.01))
    return model


@pytest.mark.every_stack
def test_a_dense_layer_keeps_its_bias(stack: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    """Behind pooling and flattening, large or small: ONNX Runtime, by hand, gives the model's outputs."""
    model = heads(stack.keras)
    x = [rng.normal(size=(5, 8, 8, 4)).astype("float32"), rng.normal(size=(5, 8, 3)).astype("float32")]
    expected = [np.asarray(output) for output in model.predict(x, verbose=0)]
    kp.export_onnx(model, tmp_path / "model.onnx", "float32")
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "model.onnx")
    named = dict(zip([entry.name for entry in session.get_inputs()], x, strict=True))
    rows = [session.run(None, {name: values[i : i + 1] for name, values in named.items()}) for i in range(5)]
    for output, exact in zip(map(np.concatenate, zip(*rows, strict=True)), expected, strict=True):
        assert np.abs(output - exact).max() <= 1e-5 * np.abs(exact).max()


def test_a_dense_layer_keeps_its_bias_in_openvino(tmp_path: Path, rng: np.random.Generator) -> None:
    """As above: OpenVINO, by hand and in float32, gives the model's outputs."""
    import keras

    openvino = pytest.importorskip("openvino", reason='pip install "keras-precision[openvino]"')
    model = heads(keras)
    x = [rng.normal(size=(5, 8, 8, 4)).astype("float32"), rng.normal(size=(5, 8, 3)).astype("float32")]
    expected = [np.asarray(output) for output in model.predict(x, verbose=0)]
    kp.export_openvino(model, tmp_path / "model.xml", "float32")
    compiled = openvino.Core().compile_model(tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rows = [list(compiled([values[i : i + 1] for values in x]).values()) for i in range(5)]
    for output, exact in zip(map(np.concatenate, zip(*rows, strict=True)), expected, strict=True):
        assert np.abs(output - exact).max() <= 1e-5 * np.abs(exact).max()


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07" * 40])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    """What is no ONNX file is told as such by every verb."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    for check in (lambda: kp.benchmark(path, np.zeros((1, 8))), lambda: kp.check_tensorrt(path)):
        with pytest.raises(FileFormatError, match=re.escape(f"{path}: expected an ONNX file")):
            check()


@pytest.mark.slow
def test_a_quantization_aware_model_keeps_what_it_trained(trained: Trained, tmp_path: Path) -> None:
    """The scales of the file are those of the ranges that training followed."""
    from keras_precision.quantization.qat.trained_model import trained_parts

    aware = kp.quantize_aware(trained.model, engine="keras")
    aware.compile("adam", "sparse_categorical_crossentropy")
    aware.fit(trained.x[:64], trained.y[:64], batch_size=32, verbose=0)
    result = kp.export_onnx(
        aware, tmp_path / "model.onnx", None, trained.x[:64], validation_data=(trained.x, trained.y)
    )
    assert result.value("agreement") >= 0.97
    _, _, ranges = trained_parts(aware, None, trained.x[:64])
    steps = np.array([(high - low) / 255 for low, high in ranges.trained.values()])
    held = constants(tmp_path / "model.onnx")
    casts = [node for node in read_onnx(tmp_path / "model.onnx").graph.node if node.op_type == "QuantizeLinear"]
    scales = [float(held[node.input[1]]) for node in casts if held[node.input[1]].ndim == 0]
    near = [np.abs(steps / scale - 1).min() < 1e-3 for scale in scales]
    assert sum(near) >= 0.7 * len(near) > 3  # the others have no range of their own in training


# TensorRT


@pytest.fixture(scope="module")
def explicit(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that obeys TensorRT's rules."""
    path = tmp_path_factory.mktemp("tensorrt") / "model.onnx"
    result = kp.export_onnx(
        trained.model, path, "int8", trained.calibration, target="tensorrt", validation_data=(trained.x, trained.y)
    )
    assert result.value("agreement") >= 0.98
    assert any("TensorRT itself was not run" in note for note in result.notes)
    assert result.plan == kp.PrecisionPlan.deployment("int8")
    return path


def test_the_target_tensorrt_obeys_each_rule(explicit: Path, trained: Trained, tmp_path: Path) -> None:
    """Each product has a Q/DQ pair before both operands; a file for ONNX Runtime breaks four rules."""
    result = kp.check_tensorrt(explicit)
    assert result.value("rules_broken") == 0
    assert {row.value for row in result.select("rule")} == {"obeyed"}
    nodes = read_onnx(explicit).graph.node
    products = [node for node in nodes if node.op_type in ("Conv", "Gemm")]
    made_by = {name: node.op_type for node in nodes for name in node.output}
    assert [made_by[name] for node in products for name in node.input[:2]] == ["DequantizeLinear"] * 8
    assert any("not run" in note for note in result.notes)
    kp.export_onnx(trained.model, tmp_path / "other.onnx", "int8", trained.calibration)
    assert kp.check_tensorrt(tmp_path / "other.onnx").value("rules_broken") >= 4
    kp.export_onnx(trained.model, tmp_path / "float.onnx", "float32")
    rows = kp.check_tensorrt(tmp_path / "float.onnx")
    assert rows.value("rules_broken") == 0
    assert [row.value for row in rows.select("rule")].count("does not apply") == 8


def first(graph: Any, kind: str) -> Any:
    """Return the first node of a kind."""
    return next(node for node in graph.node if node.op_type == kind)


def replace_constant(graph: Any, name: str, values: np.ndarray) -> None:
    """Give a constant other values."""
    each = next(each for each in graph.initializer if each.name == name)
    each.CopyFrom(onnx.numpy_helper.from_array(values, name))


def shift(graph: Any) -> None:
    """Give a cast a zero point."""
    replace_constant(graph, first(graph, "QuantizeLinear").input[2], np.array(3, np.int8))


def unsign(graph: Any) -> None:
    """Quantize an activation to uint8."""
    replace_constant(graph, first(graph, "QuantizeLinear").input[2], np.array(0, np.uint8))


def negate(graph: Any) -> None:
    """Give a cast a scale that is not positive."""
    replace_constant(graph, first(graph, "QuantizeLinear").input[1], np.array(-1, np.float32))


def activation_cast(graph: Any) -> Any:
    """Return a cast of an activation."""
    fixed = {each.name for each in graph.initializer}
    return next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in fixed)


def split_scale(graph: Any) -> None:
    """Give an activation two scales."""
    replace_constant(graph, activation_cast(graph).input[1], np.array([1, 2], np.float32))


def turn_axis(graph: Any) -> None:
    """Scale the weights of a product along their input channels."""
    made_by = {name: node for node in graph.node for name in node.output}
    cast = made_by[first(graph, "Gemm").input[1]]
    del cast.attribute[:]
    cast.attribute.append(onnx.helper.make_attribute("axis", 0))


def bare_weights(graph: Any) -> None:
    """Take the casts from the weights of a product."""
    node, made_by = first(graph, "Conv"), {name: node for node in graph.node for name in node.output}
    node.input[1] = made_by[made_by[node.input[1]].input[0]].input[0]


def quantize_bias(graph: Any) -> None:
    """Let a bias come from a cast."""
    made_by = {name: node for node in graph.node for name in node.output}
    conv = first(graph, "Conv")
    conv.input[2] = made_by[conv.input[0]].output[0]


def read_integers(graph: Any) -> None:
    """Let an operator read what is quantized, without the way back."""
    quantized = first(graph, "QuantizeLinear").output[0]
    graph.node.append(onnx.helper.make_node("Identity", [quantized], ["copied"]))


def free_batch(graph: Any) -> None:
    """Let the batch be of any size."""
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (shift, "every zero point is 0"),
        (unsign, "types are int8"),
        (negate, "positive constants"),
        (split_scale, "an activation has one scale"),
        (turn_axis, "one for each output channel"),
        (bare_weights, "activations and weights"),
        (quantize_bias, "biases are not quantized"),
        (read_integers, "followed by DequantizeLinear"),
        (free_batch, "shapes are fixed"),
    ],
)
def test_each_rule_is_seen_to_be_broken(
    change: Callable[[Any], None], rule: str, explicit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that breaks one rule is told by that rule, with the operator that breaks it."""
    model = read_onnx(explicit)
    change(model.graph)
    monkeypatch.setattr(
        "keras_precision.export.checks.tensorrt.read_onnx", lambda path: model
    )  # the checker refuses some
    result = kp.check_tensorrt(explicit)
    broken = {row.subject: row.value for row in result.select("rule") if row.value.startswith("broken by ")}
    assert any(rule in name for name in broken)
    assert result.value("rules_broken") == len(broken)


def test_what_onnx_runtime_cannot_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No threads, an operator that it does not know, and an error of a run."""
    import onnx

    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match="Expected threads >= 1. Received: 0"):
        OnnxSession(path, threads=0)
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    for operator in ("Foreign", "Relu"):
        graph = onnx.helper.make_graph([onnx.helper.make_node(operator, ["x"], ["y"])], "graph", ports[:1], ports[1:])
        opset = onnx.helper.make_opsetid("", 17)
        path.write_bytes(onnx.helper.make_model(graph, ir_version=8, opset_imports=[opset]).SerializeToString())
        if operator == "Relu":
            OnnxSession(path)
            monkeypatch.setattr(OnnxSession, "run", lambda session, sample: {}["broken"])
        with pytest.raises(FileFormatError, match="broken" if operator == "Relu" else "Foreign"):
            OnnxSession(path)


def test_a_file_that_breaks_a_rule_of_tensorrt_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The operator and its rule are named."""
    rows = (Measurement("head", "rule", "broken: no scale"), Measurement("stem", "rule", "kept"))
    monkeypatch.setattr(onnx_export, "check_tensorrt", lambda path: kp.Result("file", rows))
    with pytest.raises(ExportError, match=r"obeys TensorRT's rules\. Received: head: broken: no scale\. "):
        onnx_export._check_rules(tmp_path / "model.onnx")


def test_what_tf2onnx_raises_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises errors of any class, which stay as the cause."""

    def refuse(*_: object, **__: object) -> None:
        raise KeyError("FANCY")

    monkeypatch.setattr(onnx_graph, "_tf2onnx", lambda: SimpleNamespace(from_tflite=refuse))
    monkeypatch.setattr(onnx_graph, "_readable", lambda content: content)
    with pytest.raises(ExportError, match="Expected tf2onnx to convert 'net' to ONNX. Received: KeyError: 'FANCY'"):
        onnx_graph.onnx_graph(SimpleNamespace(content=b""), "net")


def test_what_onnx_runtime_refuses_is_no_file_for_it(tmp_path: Path) -> None:
    """The path and the first line of its message are named."""
    with pytest.raises(FileFormatError, match=r"model\.onnx"):
        open_onnx(SimpleNamespace(SerializeToString=lambda: b"garbage"), tmp_path / "model.onnx")


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_strides_larger_than_the_kernel_of_a_transposed_convolution(padding: str, tmp_path: Path) -> None:
    """The file has zeros between and behind the pixels, as the model has; what is not valid is named, and not written."""
    import keras

    image = keras.Input((5, 6, 2))
    layers = [
        keras.layers.Conv2DTranspose(3, kernel, strides=strides, padding=padding, bias_initializer="ones")
        for kernel, strides in ((1, 2), ((1, 3), (3, 2)), (2, 3))
    ]
    model, path = keras.Model(image, [layer(image) for layer in layers]), tmp_path / "model.onnx"
    kp.export_onnx(model, path, "float32")
    x = np.random.default_rng(0).normal(size=(3, 5, 6, 2)).astype("float32")
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    (name,) = [tensor.name for tensor in session.get_inputs()]
    single = [session.run(None, {name: x[number : number + 1]}) for number in range(len(x))]
    outputs = [np.concatenate(rows) for rows in zip(*single, strict=True)]
    for received, expected in zip(outputs, model.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-5)


def test_a_graph_that_is_not_valid_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX's own check of the graph ends in a typed error that names the model."""
    import keras

    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)], name="small")

    def damage(_: Any, model: Any) -> None:
        model.graph.node[0].op_type = "Nothing"

    monkeypatch.setattr(onnx_graph, "_enlarge_outputs", damage)
    with pytest.raises(ExportError, match="valid graph of 'small'"):
        kp.export_onnx(model, tmp_path / "model.onnx", "float32")
    assert not (tmp_path / "model.onnx").exists()
