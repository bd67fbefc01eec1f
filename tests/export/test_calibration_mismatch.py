"""An export says where its calibration data are not what the first layers expect, or unlike the validation data."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters.model_view import ModelView
from keras_precision.core.errors import PrecisionWarning
from keras_precision.core.plan import PrecisionPlan
from keras_precision.export.calibration_mismatch import calibration_mismatch
from keras_precision.export.request import ExportRequest
from keras_precision.export.toolchain import ExportJob
from keras_precision.quantization.float_model import FloatFile
from keras_precision.quantization.layer_trace import Trace

pytest.importorskip("ai_edge_litert.interpreter", reason='pip install "keras-precision[tflite]"')


def images(count: int = 64) -> np.ndarray:
    """Return pixels from 0 to 1, most of them dark."""
    random = np.random.default_rng(0)
    return (random.random((count, 8, 8, 3)) * (random.random((count, 8, 8, 3)) < 0.3)).astype("float32")


def mismatch(model: Any, x: Any, validation: Any = None) -> str | None:
    """Return what an int8 export of a model says of calibration data."""
    request = ExportRequest(PrecisionPlan.deployment("int8"))
    job = ExportJob(ModelView.of_built(model), request, FloatFile(b"", Trace({}, ()), ""), None, x)
    return calibration_mismatch(job, validation)


def convolution(keras: Any, *front: Any, dtype: str = "float32") -> Any:
    """Return a small network of convolutions behind some layers."""
    layers = keras.layers
    body = [layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(name="norm"), layers.ReLU()]
    return keras.Sequential([keras.Input((8, 8, 3), dtype=dtype), *front, *body, layers.Flatten(), layers.Dense(2)])


def trained(model: Any, x: np.ndarray) -> Any:
    """Return a model that begins with a convolution, with the moving statistics of what that gives."""
    norm = model.get_layer("norm")
    inputs = model.layers[0](x) if norm is not model.layers[0] else x
    values = np.asarray(inputs.detach() if hasattr(inputs, "detach") else inputs)
    moments = {"moving_mean": values.mean(axis=(0, 1, 2)), "moving_variance": values.var(axis=(0, 1, 2))}
    names = [str(weight.name).partition(":")[0].rpartition("/")[2] for weight in norm.weights]
    norm.set_weights([moments.get(name, old) for name, old in zip(names, norm.get_weights(), strict=True)])
    return model


def adapted(keras: Any, x: np.ndarray, **options: Any) -> Any:
    """Return a Normalization that was adapted to data."""
    layer = keras.layers.Normalization(**options)
    layer.adapt(x)
    return layer


def table(count: int = 200) -> np.ndarray:
    """Return features: even ones, a rare one with outliers, and a switch."""
    random = np.random.default_rng(1)
    rare = np.where(random.random(count) < 0.02, 1e5, 0)
    return np.stack([random.normal(5, 2, count), rare, random.integers(0, 2, count)], axis=1).astype("float32")


def dense(keras: Any, *front: Any) -> Any:
    """Return a small network of features behind some layers."""
    return keras.Sequential([keras.Input((3,)), *front, keras.layers.Dense(2)])


@pytest.mark.every_stack
def test_other_data_than_the_first_layers_expect(stack: Any) -> None:
    """Data too wide and too narrow, by Rescaling, Normalization and moving statistics; the figure and layer are named."""
    keras, x, rows = stack.keras, images(), table()
    rescaling = keras.layers.Rescaling
    moved = rows + np.float32([0, 0, 100])  # one feature in another unit
    wrong = [
        (convolution(keras, rescaling(1 / 255)), 255 * 255 * x, "values up to 255, .*Rescaling 'rescaling"),
        (convolution(keras, rescaling(1 / 127.5, offset=-1)), x, "too narrow.*Rescaling"),
        (convolution(keras, rescaling(255.0)), 255 * x, "up to 255, .*input of the Rescaling"),
        (dense(keras, adapted(keras, rows)), moved, "mean and variance of the Normalization"),
        (dense(keras, adapted(keras, rows)), rows * 1000, "mean and variance of the Normalization"),
        (convolution(keras, adapted(keras, 255 * x, axis=None)), x, "too narrow.*Normalization"),
        (trained(convolution(keras), x), 255 * x, "moving statistics of the BatchNormalization 'norm'"),
        (trained(convolution(keras), 255 * x), x, "too narrow.*moving statistics"),
    ]
    for model, data, pattern in wrong:
        text = mismatch(model, data)
        assert text is not None, pattern
        assert "\n" not in text
        assert "representative_dataset=" in text
        assert re.search(pattern, text)


@pytest.mark.every_stack
def test_data_that_fit_give_no_warning(stack: Any) -> None:
    """Neither with preprocessing layers, nor without, nor before training, nor for pixels and tokens that are integers."""
    keras, x, rows = stack.keras, images(), table()
    layers = keras.layers
    pixels = (255 * x).astype("uint8")
    text = keras.Sequential(
        [keras.Input((6,), dtype="int32"), layers.Embedding(9, 4), layers.Flatten(), layers.Dense(2)]
    )
    barely = trained(convolution(keras), 255 * x)
    barely.compile("sgd")
    barely.optimizer.iterations.assign(3)
    right = [
        (convolution(keras, layers.Rescaling(1 / 255)), 255 * x),
        (convolution(keras, layers.Rescaling(1 / 127.5, offset=-1)), 255 * x),
        (convolution(keras, layers.Rescaling(255.0)), x),
        (convolution(keras, layers.Rescaling(1 / 255), dtype="uint8"), pixels),
        (convolution(keras, layers.Rescaling(1.0), layers.ReLU()), x),
        (dense(keras, adapted(keras, rows)), table(60)),
        (dense(keras, adapted(keras, rows), layers.Dense(3), layers.Rescaling(1e-6)), rows),  # behind weights
        (dense(keras, layers.Normalization()), 1000 * rows),  # never adapted
        (convolution(keras), 255 * x),  # never trained
        (trained(convolution(keras), x), x[:16]),
        (barely, x),  # statistics are still near their initial values
        (text, np.random.default_rng(0).integers(0, 9, (64, 6))),
    ]
    assert [mismatch(model, data) for model, data in right] == [None] * len(right)


@pytest.mark.every_stack
def test_data_unlike_the_validation_data(stack: Any) -> None:
    """Samples of another width than the validation data are named, whatever form those have; like ones are not."""
    keras, x, rows = stack.keras, images(), table()
    model = convolution(keras)
    labels = np.zeros(len(x))
    assert "of the validation data, at the input" in str(mismatch(model, 255 * x, x))
    assert "too narrow" in str(mismatch(model, x, [255 * x]))
    assert mismatch(model, x, x[::-1]) is None
    batches = stack.keras.utils.PyDataset if stack.name != "tf_keras" else stack.keras.utils.Sequence
    once = type("Once", (batches,), {"__len__": lambda self: 1, "__getitem__": lambda self, index: (x, labels)})()
    assert "validation data" in str(mismatch(model, 255 * x, once))
    assert "validation data" in str(mismatch(dense(keras), 50 * rows, rows))
    assert mismatch(dense(keras), rows[:50], rows) is None  # outliers are in one of them alone
    assert mismatch(model, 255 * x, iter([(x, labels)])) is None  # an iterator is read once


def test_every_format_says_so(tmp_path: Path) -> None:
    """Samples and a calibration give the same warning, which is in the card's notes, and in each format; dynamic ranges none."""
    import keras

    x = images()
    model = convolution(keras, keras.layers.Rescaling(1 / 255))
    calibration = kp.calibrate(model, 255 * 255 * x)
    pattern = "calibration data .* up to 255"
    for data in (calibration, 255 * 255 * x):
        with pytest.warns(PrecisionWarning, match=pattern):
            result = kp.export_tflite(model, tmp_path / "model.tflite", "int8", data)
        assert any(re.search(pattern, note) for note in result.notes)
    pytest.importorskip("onnxruntime")
    with pytest.warns(PrecisionWarning, match=pattern):
        kp.export_onnx(model, tmp_path / "model.onnx", "int8", calibration)
    pytest.importorskip("nncf")
    with pytest.warns(PrecisionWarning, match=pattern):
        kp.export_openvino(model, tmp_path / "model.xml", "int8", 255 * 255 * x)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        kp.export_tflite(model, tmp_path / "model.tflite", "int8_dynamic", calibration)
        kp.export_tflite(model, tmp_path / "model.tflite", "int8", 255 * x)


def test_a_calibration_has_no_part_in_files_without_ranges(tmp_path: Path) -> None:
    """A plan whose activations stay in float gives the same bytes from a calibration and from the samples."""
    import keras

    x = images()
    model, path = convolution(keras), tmp_path / "model.tflite"
    for plan in (PrecisionPlan.deployment("int8_dynamic", layers={"dense": "float32"}), "int8_dynamic"):
        contents = []
        for data in (kp.calibrate(model, x), x):
            kp.export_tflite(model, path, plan, data)
            contents.append(path.read_bytes())
        assert contents[0] == contents[1]
