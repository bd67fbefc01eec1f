"""A channel of the output that is lost in the scale of another: named, and recovered by a plan whose file is run by hand."""

import keras
import litert
import numpy as np
import pytest

import keras_precision as kp


def detector(side: int) -> keras.Model:
    """A head whose boxes are pixels, and whose scores are between 0 and 1, in one tensor."""
    inputs = keras.Input((side, side, 3), name="x")
    features = keras.layers.Conv2D(8, 3, 2, "same", activation="relu")(inputs)
    boxes = keras.layers.Rescaling(640.0)(keras.layers.Conv2D(4, 1, activation="sigmoid")(features))
    scores = keras.layers.Conv2D(3, 1, activation="sigmoid")(features)
    joined = keras.layers.Concatenate(name="joined")([boxes, scores])
    return keras.Model(inputs, keras.layers.Reshape((side**2 // 4, 7), name="flat")(joined))


def regression(side: int) -> keras.Model:
    """Price and rooms in one Dense."""
    inputs = keras.Input((side, side, 3), name="x")
    features = keras.layers.Dense(8, "relu")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(features))
    kernel, _ = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * [5e4, 1.0], np.array([3e5, 4.0])])
    return model


def ratios(path, x: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Run a file without the package, and return the ratio of each channel in decibels."""
    (actual,) = litert.predict(path, {"x": x})
    axes = tuple(range(expected.ndim - 1))
    return 20 * np.log10(expected.std(axis=axes) / np.sqrt(np.mean((actual - expected) ** 2, axis=axes)))


@pytest.mark.parametrize(
    ("build", "side", "lost", "layers"),
    [
        (detector, 8, [4, 5, 6], {"joined", "flat"}),
        (detector, 16, [4, 5, 6], {"joined", "flat"}),  # so many values that every plan changes one of each sample
        (regression, 8, [1], {"head"}),
    ],
)
def test_lost_channels_are_named_and_recovered(build, side, lost, layers, tmp_path) -> None:
    """The report and the explanation find them, and the plan's file keeps them: the last layers alone stay in float."""
    keras.utils.set_random_seed(3)
    model, x = build(side), np.random.default_rng(0).random((64, side, side, 3)).astype("float32")
    expected, path = model.predict(x, verbose=0), tmp_path / "model.tflite"
    kp.export_tflite(model, path, "int8", x)
    assert np.flatnonzero(ratios(path, x, expected) < 10).tolist() == lost
    explained = kp.explain_drop(model, path, x, expected, x)
    for result in (kp.quantization_report(model, path, x), explained):
        (finding,) = [finding for finding in kp.diagnose(result) if finding.code == "drowned-channels"]
        assert all(str(channel) in finding.message.partition(" of ")[0] for channel in lost)
        assert finding.subject in layers
    assert "explained.plan" in finding.advice
    assert explained.value("changed_samples", "all") == len(x)
    assert explained.plan.io == "float32"
    assert set(explained.plan.layers) == layers
    kp.export_tflite(model, path, explained.plan, x)
    assert ratios(path, x, expected).min() > 10
