"""calibrate: what is counted is what the model computes, and the value serves later exports."""

import json
import os
import tracemalloc
import zipfile

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import DataError, FileFormatError, ModelError, UnknownPrecisionError
from keras_precision.quantization.histogram import Histogram
from keras_precision.quantization.tensor_recorder import TensorRecorder
from keras_precision.quantization.tensor_statistics import TensorStatistics
from keras_precision.runtimes.tflite.file import input_details, interpreter
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer


@pytest.fixture(scope="module")
def keras():
    """Keras, of which these tests need one stack alone."""
    import keras

    return keras


@pytest.fixture(scope="module")
def measured(keras):
    """A net, images, and the calibration on them."""
    keras.utils.set_random_seed(1)
    model = nets.conv(keras)
    x, _ = nets.images(np.random.default_rng(1), 37)
    return model, x, kp.calibrate(model, x)


def held_by(calibration, x, folder):
    """Return what each activation holds on the samples, run one by one: name to an array of all of them."""
    path = folder / "float.tflite"
    path.write_bytes(calibration.float_file.content)
    opened = interpreter(path, delegates=False, keep=True)
    graph = Flatbuffer(calibration.float_file.content)
    (_, given), found = input_details(opened)[0], {}
    for sample in x:
        opened.set_tensor(given["index"], sample[np.newaxis])
        opened.invoke()
        for number in graph.activations():
            found.setdefault(graph.name(number), []).append(opened.get_tensor(number))
    return {name: np.stack(values) for name, values in found.items()}


def test_every_activation_is_counted_exactly(measured, tmp_path):
    """Histograms, ends and channel means are those of the values that the interpreter gives, batches or not."""
    _, x, calibration = measured
    expected = held_by(calibration, x, tmp_path)
    assert calibration.samples == 37
    assert set(calibration.seen) == set(expected)
    for name, values in expected.items():
        seen, table = calibration.seen[name], values.reshape(-1, values.shape[-1])
        assert seen.values.count == values.size
        assert (seen.values.minimum, seen.values.maximum) == pytest.approx((values.min(), values.max()), rel=1e-5)
        np.testing.assert_allclose(seen.mean, table.mean(axis=0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose([seen.low, seen.high], [table.min(axis=0), table.max(axis=0)], rtol=1e-4, atol=1e-6)
        direct = Histogram()
        direct.update(values)
        # A value on the edge of a bin may fall to the other side, by the order in which floats are added.
        assert np.abs(direct.above - seen.values.above).sum() <= 0.01 * values.size + 4


def test_batches_are_used_where_the_graph_allows_it(measured):
    """The observer runs several samples at once on a plain net, and one at a time on a fixed shape inside."""
    _, _, calibration = measured
    assert TensorRecorder(calibration.float_file.content, [0]).batch > 1
    assert TensorRecorder(calibration.float_file.content, [0], batch=1).batch == 1


def test_a_graph_with_a_fixed_shape_inside_is_run_one_by_one(keras, rng):
    """A batch that would mix samples is noticed, and the counts are right all the same."""
    series = keras.Input((4, 6), name="series")
    mixed = keras.layers.Lambda(lambda values: keras.ops.reshape(values, (1, 24)), output_shape=(24,))(series)
    model = keras.Model(series, keras.layers.Dense(2, name="head")(mixed))
    x = rng.normal(size=(20, 4, 6)).astype("float32")
    calibration = kp.calibrate(model, x)
    assert TensorRecorder(calibration.float_file.content, [0]).batch == 1
    assert calibration.inputs()["series"].values.maximum == x.max()
    assert calibration.inputs()["series"].values.count == x.size


def test_one_pass_and_any_form_of_data(measured):
    """A generator is read once, and gives the counts of the array."""
    model, x, calibration = measured
    asked = []

    def pieces():
        for start in range(0, len(x), 5):
            asked.append(start)
            yield x[start : start + 5]

    again = kp.calibrate(model, pieces())
    assert asked == list(range(0, len(x), 5))
    assert again.samples == 37
    for name, seen in calibration.seen.items():
        assert again.seen[name].values.count == seen.values.count
        assert again.seen[name].values.maximum == pytest.approx(seen.values.maximum, rel=1e-5)


def test_memory_does_not_grow_with_the_samples(keras):
    """Five times the samples, made as they are asked for, take no more memory at the peak: kept, they would take 6 MB."""
    model = keras.Sequential([keras.Input((1250,)), keras.layers.Dense(2)])
    rng = np.random.default_rng(0)

    def peak_of(pieces):
        tracemalloc.start()
        kp.calibrate(model, (rng.normal(size=(32, 1250)).astype("float32") for _ in range(pieces)), verbose=False)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak_of(1)  # what is imported and kept the first time
    assert peak_of(50) < peak_of(10) + 1e6  # what other threads of the process do meanwhile is less


def test_a_calibration_saves_and_loads(measured, tmp_path):
    """The file gives back the same ranges by every method, and serves an export with the same bytes."""
    model, _, calibration = measured
    loaded = kp.Calibration.load(calibration.save(tmp_path / "net.calibration"))
    assert loaded.samples == 37
    for method in ("minmax", "mse", "percentile", "entropy"):
        assert loaded.ranges(method) == calibration.ranges(method)
    for given, name in ((calibration, "a.tflite"), (loaded, "b.tflite")):
        kp.export_tflite(model, tmp_path / name, "int8", given)
    answers = [
        kp.edge.predict(tmp_path / name, np.ones((1, 12, 12, 1), np.float32)) for name in ("a.tflite", "b.tflite")
    ]
    np.testing.assert_array_equal(*answers)


def test_a_calibration_belongs_to_its_weights(keras, measured, tmp_path):
    """After training, the older calibration is refused."""
    _, x, _ = measured
    model = nets.conv(keras)
    calibration = kp.calibrate(model, x)
    model.layers[-1].bias.assign([0.1, 0, 0])
    with pytest.raises(ModelError, match=r"of the present weights of 'conv'.*Calibrate again"):
        kp.export_tflite(model, tmp_path / "model.tflite", "int8", calibration)


def cut(content):
    """Return half of a file."""
    return content[: len(content) // 2]


@pytest.mark.parametrize("damage", [cut, lambda content: b"", lambda content: b"PK" + content[5:]])
def test_damaged_calibrations_are_refused(measured, tmp_path, damage):
    """A file that is cut off, empty or foreign says so."""
    path = measured[2].save(tmp_path / "net.calibration")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileFormatError, match="expected a calibration that save wrote"):
        kp.Calibration.load(path)


def test_calibrations_without_their_tensors_are_refused(measured, tmp_path):
    """An archive that lacks an array, or is of a later version, is refused with the field."""
    path = measured[2].save(tmp_path / "net.calibration")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for change, message in (
        ({"arrays.npz": None}, "expected a calibration that save wrote"),
        (
            {"header.json": parts["header.json"].replace(b'"version": 3', b'"version": 9')},
            "'version' to be between 1 and 3",
        ),
        ({"header.json": parts["header.json"].replace(b'"tensors": [[', b'"tensors": [[7,')}, "expected the tensors"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**parts, **change}.items():
                if content is not None:
                    archive.writestr(name, content)
        with pytest.raises(FileFormatError, match=message):
            kp.Calibration.load(path)


def test_older_calibrations_are_read(measured, tmp_path):
    """One of before cross-layer equalization has the model's own weights, and serves an export."""
    model, _, calibration = measured
    path = calibration.save(tmp_path / "net.calibration")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(parts["header.json"])
    assert header.pop("equalized_pairs", 0) is None
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (parts | {"header.json": json.dumps(header | {"version": 2}).encode()}).items():
            archive.writestr(name, content)
    older = kp.Calibration.load(path)
    assert older.float_file.equalized_pairs is None
    assert kp.export_tflite(model, tmp_path / "m.tflite", "int8", older).value("calibration_samples") == 37


def test_activations_that_are_not_finite_are_named(keras):
    """A model that is broken in float is refused with the layer, before anything is quantized."""
    features = keras.Input((4,), name="features")
    broken = keras.layers.Lambda(lambda values: keras.ops.log(values - 2.0), name="ratio")(features)
    model = keras.Model(features, keras.layers.Dense(2, name="head")(broken))
    with pytest.raises(DataError, match=r"NaN or infinity from the layer 'ratio', in float32"):
        kp.calibrate(model, np.ones((4, 4), np.float32))


def test_nothing_is_left_behind(measured, tmp_path, monkeypatch):
    """Calibrating leaves no file, and the model as it was."""
    model, x, _ = measured
    monkeypatch.chdir(tmp_path)
    before = [array.copy() for array in model.get_weights()]
    kp.calibrate(model, x[:4])
    assert os.listdir(tmp_path) == []
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_calibration_needs_no_data_for_weights_alone(measured, tmp_path):
    """Plans without integer activations are exported without samples."""
    model, _, _ = measured
    written = kp.export_tflite(model, tmp_path / "model.tflite", "int8_dynamic")
    assert written.value("operator_count", "CONV_2D int8_dynamic") == 2
    with pytest.raises(UnknownPrecisionError):
        kp.export_tflite(model, tmp_path / "model.tflite", "int2")


def test_progress_is_drawn_when_asked_for(measured, capsys):
    """``verbose=True`` shows the bar on standard error, and the default shows nothing off a terminal."""
    model, x, _ = measured
    kp.calibrate(model, x[:4])
    assert capsys.readouterr() == ("", "")
    kp.calibrate(model, x[:4], verbose=True)
    heard = capsys.readouterr()
    assert heard.out == ""
    assert "calibrating" in heard.err


def test_means_of_the_lowest_floats_are_numbers():
    """Masks are such floats: their sum is beyond float32, and no warning says so."""
    statistics = TensorStatistics()
    statistics.update(np.full((1000, 4), np.finfo(np.float32).min))
    np.testing.assert_allclose(statistics.mean, np.finfo(np.float32).min)
