"""An export whose file predicts otherwise than its model says so, with a plan whose file does not."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import litert as litert_predictions
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import PrecisionWarning
from keras_precision.export import agreement_check
from keras_precision.runtimes.card import card

litert = pytest.importorskip("ai_edge_litert.interpreter", reason='pip install "keras-precision[tflite]"')

OTHERWISE = r"predicts otherwise than the model: an agreement of 0\.\d+ at output 0, on 100 calibration samples"


def predictions(path: Path, x: np.ndarray) -> np.ndarray:
    """Return the classes that LiteRT predicts with a file of float or int8 inputs."""
    runner = litert.Interpreter(str(path))
    runner.allocate_tensors()
    entry, output = runner.get_input_details()[0], runner.get_output_details()[0]
    classes = []
    for sample in x:
        if entry["dtype"] == np.int8:
            scale, zero = entry["quantization"]
            sample = np.clip(np.round(sample / scale) + zero, -128, 127).astype(np.int8)
        runner.set_tensor(entry["index"], sample[np.newaxis])
        runner.invoke()
        classes.append(runner.get_tensor(output["index"]).argmax())
    return np.array(classes)


def with_weights(model: Any, size: float) -> Any:
    """Return a model with random weights, large enough for its predictions to be sure."""
    random = np.random.default_rng(1)
    for layer in model.layers:
        if layer.name != "norm" and layer.get_weights():
            layer.set_weights([random.normal(0, size, values.shape) for values in layer.get_weights()])
    return model


def tokens(keras: Any) -> tuple[Any, np.ndarray]:
    """Return an embedding of tokens that come as floats, and tokens."""
    layers = keras.layers
    front = [keras.Input((6,)), layers.Embedding(1000, 8), layers.Flatten()]
    model = keras.Sequential([*front, layers.Dense(2, "softmax")])
    return with_weights(model, 1.0), np.random.default_rng(0).integers(0, 1000, (200, 6)).astype("float32")


def unlike_features(keras: Any) -> tuple[Any, np.ndarray]:
    """Return a model of features whose scales differ by a thousand, which it normalizes, and such features."""
    layers, random = keras.layers, np.random.default_rng(0)
    columns = [random.normal(50000, 15000, 200), random.random(200), random.normal(0, 1, 200)]
    x = np.stack(columns, axis=1).astype("float32")
    norm = layers.Normalization(name="norm")
    norm.adapt(x)
    model = keras.Sequential([keras.Input((3,)), norm, layers.Dense(8, "relu"), layers.Dense(2, "softmax")])
    return with_weights(model, 1.0), x


def unlike_series(keras: Any) -> tuple[Any, np.ndarray]:
    """Return a recurrent model of two features of unlike scale, and series of them."""
    layers, random = keras.layers, np.random.default_rng(0)
    x = np.stack([random.normal(0, 1, (200, 8)), random.normal(0, 1000, (200, 8))], axis=-1).astype("float32")
    norm = layers.Normalization(name="norm")
    norm.adapt(x)
    model = keras.Sequential([keras.Input((8, 2)), norm, layers.LSTM(6), layers.Dense(2, "softmax")])
    return with_weights(model, 1.0), x


def check_cure(model: Any, x: np.ndarray, path: Path, io: str | None = None) -> None:
    """Export in int8: the warning is true, and so is its advice, by LiteRT alone."""
    expected = np.asarray(model.predict(x, verbose=0)).argmax(axis=-1)
    with warnings.catch_warnings(record=True) as caught:  # those of TensorFlow, on its first use in a process, too
        warnings.simplefilter("always", PrecisionWarning)
        result = kp.export_tflite(model, path, "int8", x, io=io)
    (text,) = [str(warning.message) for warning in caught if warning.category is PrecisionWarning]
    assert re.search(OTHERWISE, text)
    assert text in result.notes
    assert text in card(path).notes
    assert np.mean(predictions(path, x) == expected) < 0.95
    plan = eval(re.search(r"kp\.PrecisionPlan\.deployment\(.*\)", text).group(), {"kp": kp})
    kp.export_tflite(model, path, plan, x)
    assert np.mean(predictions(path, x) == expected) >= 0.95


@pytest.mark.every_stack
def test_tokens_that_come_as_floats(stack: Any, tmp_path: Path) -> None:
    """Numbers up to 1000 do not fit an int8 input that is asked for: the advice keeps it in float, as exports do by themselves."""
    check_cure(*tokens(stack.keras), tmp_path / "model.tflite", io="int8")


@pytest.mark.parametrize("build", [unlike_features, unlike_series])
def test_features_of_unlike_scale(build: Callable[[Any], tuple[Any, np.ndarray]], tmp_path: Path) -> None:
    """One scale for all features loses the small ones: the advice normalizes in float."""
    import keras

    model, x = build(keras)
    check_cure(model, x, tmp_path / "model.tflite")


def test_lost_channels_of_one_output_of_several(tmp_path: Path) -> None:
    """Boxes in pixels beside scores, in the second output: the warning names them, and its plan keeps every channel."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 3), name="x")
    features = layers.Conv2D(8, 3, 2, "same", activation="relu")(inputs)
    boxes = layers.Rescaling(640.0)(layers.Conv2D(4, 1, activation="sigmoid")(features))
    scores = layers.Conv2D(3, 1, activation="sigmoid")(features)
    kind = layers.Dense(2, "softmax")(layers.Flatten()(features))
    model = keras.Model(inputs, [kind, layers.Concatenate()([boxes, scores])])
    x = np.random.default_rng(0).random((100, 8, 8, 3)).astype("float32")
    expected, path = model.predict(x, verbose=0)[1], tmp_path / "model.tflite"
    axes = (0, 1, 2)

    def ratios() -> np.ndarray:
        (actual,) = (output for output in litert_predictions.predict(path, {"x": x}) if output.shape == expected.shape)
        return 20 * np.log10(expected.std(axis=axes) / np.sqrt(np.square(actual - expected).mean(axis=axes)))

    with pytest.warns(
        PrecisionWarning, match="channels 4, 5 and 6 of output 1 are lost in the scale of others"
    ) as caught:
        kp.export_tflite(model, path, "int8", x)
    assert ratios()[4:].max() < 10 < ratios()[:4].min()
    (text,) = [str(warning.message) for warning in caught if warning.category is PrecisionWarning]
    plan = eval(re.search(r"kp\.PrecisionPlan\.deployment\(.*\)", text).group(), {"kp": kp})
    kp.export_tflite(model, path, plan, x)
    assert ratios().min() > 15


def test_what_was_tried_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no plan helps, the warning has the figures of those that were tried."""
    import keras

    model, x = tokens(keras)
    monkeypatch.setattr(agreement_check, "_plans", lambda *_: iter([kp.PrecisionPlan.deployment("int4", io="int8")]))
    with pytest.warns(PrecisionWarning, match=r"Tried without success: .*Export in float32\."):
        kp.export_tflite(model, tmp_path / "model.tflite", "int8", x, io="int8")


def test_a_file_like_its_model_gives_no_warning(tmp_path: Path) -> None:
    """Neither a quantized file that predicts as the model does, nor one without samples to run it on."""
    import keras

    model, x = tokens(keras)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kp.export_tflite(model, tmp_path / "model.tflite", "int8_dynamic", x)
        kp.export_tflite(model, tmp_path / "model.tflite", "int8_dynamic")


def test_a_quantized_file_that_is_larger_says_so(tmp_path: Path, rng: np.random.Generator) -> None:
    """A few weights less do not pay for the scales of the tensors."""
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "relu"), keras.layers.Dense(2)])
    x = rng.normal(size=(64, 3)).astype("float32")
    float_size = kp.export_tflite(model, tmp_path / "float.tflite", "float32").value("size_bytes")
    result = kp.export_tflite(model, tmp_path / "int8.tflite", "int8", x)
    assert result.value("size_bytes") > float_size
    assert any(re.fullmatch(r"the int8 file has \d+ bytes, and one in float32 has \d+", note) for note in result.notes)


def test_an_output_that_does_not_vary_gives_no_warning(tmp_path: Path, rng: np.random.Generator) -> None:
    """Half a step of its own integers is no loss of a constant."""
    import keras

    head = keras.layers.Dense(2, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(3.3))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "relu"), head])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kp.export_tflite(model, tmp_path / "model.tflite", "int8", rng.normal(size=(64, 3)).astype("float32"))
