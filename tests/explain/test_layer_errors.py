"""quantization_report and its rules, on nets with planted faults."""

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import DataError, FileFormatError
from keras_precision.core.result import Measurement, Result
from keras_precision.findings.quantization_rules import quantization_findings
from keras_precision.scoring.scores import snr_db


def dense(keras, **weights):
    """Two dense layers over 4 features, with the weights given by layer."""
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((4,), name="features"),
            layers.Dense(4, activation="relu", name="hidden"),
            layers.Dense(3, activation="softmax", name="head"),
        ],
        name="two",
    )
    model.get_layer("hidden").set_weights([np.eye(4), np.zeros(4)])
    for name, values in weights.items():
        model.get_layer(name).set_weights(values)
    return model


def codes(model, tmp_path, calibration, x):
    """Export a model as int8, report on it, and return the findings by code."""
    kp.export_tflite(model, tmp_path / "model.tflite", "int8", calibration)
    report = kp.quantization_report(model, tmp_path / "model.tflite", x)
    return {finding.code: finding for finding in kp.diagnose(report)}


@pytest.fixture(scope="module")
def x():
    """Features between 0 and 1."""
    return np.random.default_rng(0).uniform(0, 1, (160, 4)).astype("float32")


def test_the_figures_are_those_of_numpy(tmp_path, rng):
    """The last layer's error is that of the answers, ranges are those of the file, and layers come in order."""
    import keras

    model = nets.conv(keras)
    x, _ = nets.images(rng, 30)
    calibration = kp.calibrate(model, x)
    kp.export_tflite(model, tmp_path / "model.tflite", "int8", calibration)
    kp.export_tflite(model, tmp_path / "float.tflite", "float32")
    report = kp.quantization_report(model, tmp_path / "model.tflite", x)
    layers = [row.subject for row in report.select("snr_db")]
    assert layers == ["stem", "depthwise", "pointwise", "residual", "pool", "head"]
    answers = [kp.edge.predict(tmp_path / name, x) for name in ("float.tflite", "model.tflite")]
    assert report.value("snr_db", "head") == pytest.approx(snr_db(*answers), abs=0.5)
    r, q = (each.astype("float64").ravel() for each in answers)
    assert report.value("cosine", "head") == pytest.approx(r @ q / np.sqrt((r @ r) * (q @ q)), abs=1e-4)
    low, high = calibration.ranges("mse")[next(name for name in calibration.seen if "/pool" in name)]
    assert report.value("range_low", "pool") == pytest.approx(low, abs=0.01 * high)
    assert report.value("range_high", "pool") == pytest.approx(high, rel=0.01)
    assert report.value("range_low", "head") == 0
    assert report.value("channels", "stem") == 8
    assert report.value("calibration_samples") == 30
    loss = report.value("snr_db", "pool") - report.value("snr_db", "head")
    assert report.value("snr_loss_db", "head") == pytest.approx(loss)
    assert all(0 <= row.value <= 1 for row in report.select("clipped_share"))


def test_a_sound_file_has_no_findings(tmp_path, x):
    """Enough samples of the same distribution, and no fault: nothing is found."""
    import keras

    assert codes(dense(keras), tmp_path, x[:120], x) == {}


def test_few_samples_and_other_data_are_found(tmp_path, x):
    """Data that reach beyond the calibration, and calibration that reaches beyond the data, each have a code."""
    import keras

    found = codes(dense(keras), tmp_path, x[:20] / 4, x)
    assert "chosen from 20 samples" in found["calibration-few-samples"].message
    assert found["calibration-other-data"].subject == "hidden"
    assert "lie outside the range in the file" in found["calibration-other-data"].message
    wide = codes(dense(keras), tmp_path, np.concatenate([x[:120], 10 * x[:20]]), x)
    assert wide["calibration-too-wide"].subject == "hidden"
    assert "calibration-other-data" not in wide


@pytest.mark.parametrize("kind", ["pooled input", "pooled branch", "joined branches", "tanh"])
def test_a_scale_that_is_forced_is_not_too_wide(kind, tmp_path, rng):
    """Pooling has the scale of what it reads, a concatenation one for all branches, and tanh always the same one."""
    import keras

    layers = keras.layers
    inputs = layers.Input((8, 8, 2), name="image")
    wide, narrow = (layers.Conv2D(3, 1, name=name) for name in ("wide", "narrow"))
    features = {
        "pooled input": lambda: layers.AveragePooling2D(8)(inputs),
        "pooled branch": lambda: layers.AveragePooling2D(8)(wide(inputs)),
        "joined branches": lambda: layers.Concatenate()([wide(inputs), narrow(inputs)]),
        "tanh": lambda: layers.Activation("tanh")(narrow(inputs)),
    }[kind]()
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(features)))
    for layer, gain in ((wide, 100.0), (narrow, 0.05)):
        if layer.built:
            layer.set_weights([gain * rng.normal(size=(1, 1, 2, 3)), np.zeros(3)])
    x = rng.normal(size=(120, 8, 8, 2)).astype("float32")
    assert "calibration-too-wide" not in codes(model, tmp_path, x, x)


def test_dead_and_outlying_channels_are_found(tmp_path, x):
    """A channel that is always 0, and one that reaches a thousand times as far as the others."""
    import keras

    dead = dense(keras, hidden=[np.eye(4), np.array([0.0, 0, 0, -9])])
    assert "1 of 4 channels of 'hidden' are 0" in codes(dead, tmp_path, x, x)["dead-channels"].message
    head = np.concatenate([np.zeros((1, 3)), np.eye(3)])
    far = dense(keras, hidden=[np.diag([1000.0, 1, 1, 1]), np.zeros(4)], head=[head, np.zeros(3)])
    kp.export_tflite(far, tmp_path / "far.tflite", "int8", x)
    assert kp.quantization_report(far, tmp_path / "far.tflite", x).value("outlier_channels", "hidden") == 1


def test_a_coarse_softmax_input_is_found(tmp_path, x):
    """Logits of hundreds leave steps that tell no close answers apart."""
    import keras

    hot = dense(keras, head=[200 * np.random.default_rng(1).normal(size=(4, 3)), np.zeros(3)])
    found = codes(hot, tmp_path, x, x)["softmax-input-coarse"]
    assert found.subject == "head"
    assert "steps of" in found.message


def test_the_rules_alone():
    """Layers that lose signal come in order of what they lose; outliers count only where it is lost, and then as its cause."""
    rows = []
    figures = {"a": (15.0, 8.0, 0), "b": (9.0, 20.0, 0), "c": (40.0, 30.0, 2), "d": (8.0, 1.0, 2), "e": (9.0, 30.0, 2)}
    for name, (snr, loss, outliers) in figures.items():
        rows += [Measurement(name, "snr_db", snr), Measurement(name, "snr_loss_db", loss)]
        rows += [Measurement(name, "outlier_channels", outliers), Measurement(name, "channels", 16)]
    found = quantization_findings(Result("layers", rows))
    assert [each.subject for each in found if each.code == "layer-loses-signal"] == ["b", "a"]
    assert [each.subject for each in found if each.code == "outlier-channels"] == ["d", "e"]
    assert quantization_findings(Result("layers")) == ()


def test_what_cannot_be_reported(tmp_path, x):
    """Files that are none, and samples that do not fit, are refused."""
    import keras

    model = dense(keras)
    (tmp_path / "none.tflite").write_bytes(b"")
    with pytest.raises(FileFormatError, match="expected a TensorFlow Lite file"):
        kp.quantization_report(model, tmp_path / "none.tflite", x)
    kp.export_tflite(model, tmp_path / "model.tflite", "int8", x)
    with pytest.raises(DataError, match=r"Expected samples of shape \(n, 4\)"):
        kp.quantization_report(model, tmp_path / "model.tflite", x[:, :2])


def test_float_tensors_have_no_range(tmp_path, x):
    """A layer that stayed in float is compared all the same, and has no range; one without a card, no calibration."""
    import keras

    model = dense(keras)
    plan = kp.PrecisionPlan.deployment("int8", layers={"hidden": "float32"})
    kp.export_tflite(model, tmp_path / "model.tflite", plan, x)
    report = kp.quantization_report(model, tmp_path / "model.tflite", x)
    assert [row.subject for row in report.select("range_low")] == ["head"]
    assert {row.subject for row in report.select("snr_db")} == {"hidden", "head"}
    (tmp_path / "bare.tflite").write_bytes(kp.calibrate(model, x).float_file.content)
    bare = kp.quantization_report(model, tmp_path / "bare.tflite", x)
    assert bare.select("calibration_samples") == ()
    assert bare.value("snr_db", "head") == np.inf
