"""The method that an export chooses by itself: the one whose int8 file answers most as the float file does."""

from dataclasses import replace

import keras
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import ExportError, InputError
from keras_precision.export import agreement_check, calibration_choice, plan_compiler
from keras_precision.export.calibration_choice import method_of
from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.quantization import calibration as calibration_module
from keras_precision.runtimes.card import card
from keras_precision.runtimes.tflite.in_memory import predict_in_memory
from keras_precision.scoring.divergence import output_kind


@pytest.fixture
def net(rng):
    """A net, its calibration, and samples that the calibration has not seen.

    The wrong classes lie far below, as trained nets have them: steps over all of that are too coarse.
    """
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16,)),
            keras.layers.Dense(32, "relu", name="hidden"),
            keras.layers.Dense(6, name="logits"),
            keras.layers.Softmax(name="answers"),
        ]
    )
    model.get_layer("logits").kernel.assign(rng.normal(size=(32, 6)))
    model.get_layer("logits").bias.assign([0, 0, 0, 0, -90, -200])
    x = rng.normal(size=(400, 16)).astype("float32")
    return model, kp.calibrate(model, x[:200]), x[200:]


def apart(path, calibration, samples):
    """Return how far a file's answers are from the float file's."""
    (reference,) = predict_in_memory(calibration.float_file.content, {next(iter(calibration.held)): samples})
    return output_kind(reference).divergence(reference, kp.edge.predict(path, samples))


@pytest.mark.parametrize("tried", [("mse", "minmax"), ("minmax", "mse")])
def test_the_nearer_method_is_chosen(net, tried, tmp_path, monkeypatch):
    """On samples that had no part in it the method chosen is the better one, and the card names it."""
    monkeypatch.setattr(calibration_choice, "TRIED", tried)
    model, calibration, unseen = net
    found = {}
    for name in tried:
        kp.export_tflite(model, tmp_path / f"{name}.tflite", "int8", calibration, io="float32", calibration=name)
        found[name] = apart(tmp_path / f"{name}.tflite", calibration, unseen)
    result = kp.export_tflite(model, tmp_path / "auto.tflite", "int8", calibration, io="float32")
    best = min(found, key=found.__getitem__)
    assert max(found.values()) > 1.2 * min(found.values())  # so that there is something to choose
    assert result.value("calibration_method") == best == card(tmp_path / "auto.tflite").value("calibration_method")
    assert apart(tmp_path / "auto.tflite", calibration, unseen) == found[best]


def test_it_is_found_once_for_a_calibration(net, tmp_path, monkeypatch):
    """A further plan makes no further files to choose by; a calibration that was saved decides alike."""
    model, calibration, _ = net
    first = method_of(calibration, "auto")
    loaded = kp.Calibration.load(calibration.save(tmp_path / "kept"))
    assert {name: values.shape for name, values in loaded.held.items()} == {
        name: values.shape for name, values in calibration.held.items()
    }
    assert method_of(loaded, "auto") == first
    monkeypatch.setattr(calibration_choice, "PlanCompiler", None)  # it is not called again
    plan = kp.PrecisionPlan.deployment("int8", layers={"hidden": "float32"})
    assert kp.export_tflite(model, tmp_path / "model.tflite", plan, calibration).value("calibration_method") == first


def test_other_toolchains_choose_alike(net, tmp_path):
    """An .onnx file has the ranges of the same method."""
    pytest.importorskip("tf2onnx", reason='pip install "keras-precision[onnx]"')
    model, calibration, _ = net
    result = kp.export_onnx(model, tmp_path / "model.onnx", "int8", calibration)
    assert result.value("calibration_method") == method_of(calibration, "auto")


def test_without_samples_or_files_it_is_the_first(net, monkeypatch):
    """A calibration without samples, and a net that no engine quantizes as a whole, keep the former default."""
    _, calibration, _ = net
    assert method_of(replace(calibration, held={}), "auto") == "mse"

    def refuse(*_):
        raise ExportError("Expected nothing. Received: nothing.")

    monkeypatch.setattr(PlanCompiler, "quantize", staticmethod(refuse))
    assert method_of(replace(calibration), "auto") == "mse"
    assert method_of(calibration, "percentile") == "percentile"


def test_the_samples_kept_are_few_and_whole(rng):
    """At most 256 samples stay, of each input the same ones, in their own types."""
    tokens, table = keras.Input((3,), dtype="int32", name="tokens"), keras.Input((2,), name="table")
    x = keras.layers.Concatenate()([keras.layers.Flatten()(keras.layers.Embedding(900, 2)(tokens)), table])
    model = keras.Model([tokens, table], keras.layers.Dense(2)(x))
    numbers = np.arange(900)
    data = {
        "tokens": np.repeat(numbers[:, None], 3, 1).astype("int32"),
        "table": np.repeat(numbers[:, None], 2, 1).astype("float32"),
    }
    held = kp.calibrate(model, data).held
    assert 128 <= len(held["tokens"]) <= 256
    assert held["tokens"].dtype == np.int32
    np.testing.assert_array_equal(held["tokens"][:, 0], held["table"][:, 0])
    assert held["table"].max() > 800  # from all of the data


def test_auto_is_no_method_of_ranges(net):
    """Ranges are asked for by a method; an unknown one names those that an export takes."""
    model, calibration, _ = net
    with pytest.raises(InputError, match=r"method: minmax, percentile, mse, entropy\. Received: 'auto'"):
        calibration.ranges("auto")
    with pytest.raises(InputError, match=r"method: auto, minmax, percentile, mse, entropy\. Received: 'best'"):
        kp.export_tflite(model, "model.tflite", "int8", calibration, calibration="best")


def test_a_channel_that_is_lost_counts(rng):
    """Price and rooms share the scale of one output: the divergence by which files are chosen sees that rooms are lost."""
    head = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((4,)), head])
    head.set_weights([rng.normal(size=(4, 2)) * [5e4, 1.0], np.array([3e5, 4.0])])
    calibration = kp.calibrate(model, rng.normal(size=(100, 4)).astype("float32"))
    assert PlanCompiler(calibration, "minmax").divergence("int8", corrected=False) > 0.4


def test_the_float_file_runs_once(net, tmp_path, monkeypatch):
    """All files of a calibration are compared with one run of the float file: by the choice of a method, and by the exports."""
    model, calibration, _ = net
    contents = []

    def counted(content, samples, threads=1):
        contents.append(content)
        return predict_in_memory(content, samples, threads)

    for module in (calibration_module, plan_compiler, agreement_check):
        monkeypatch.setattr(module, "predict_in_memory", counted)
    for plan in ("int8", "int16x8", "int4"):
        kp.export_tflite(model, tmp_path / "model.tflite", plan, calibration)
    assert contents.count(calibration.float_file.content) == 1
    assert len(contents) > 4
