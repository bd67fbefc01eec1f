"""export_openvino: the files answer as the model does on OpenVINO's processor runtime, or are not written."""

import contextlib
import os
from pathlib import Path
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
    UnknownPrecisionError,
)
from keras_precision.core.system.child_process import run_python
from keras_precision.export.openvino import OpenvinoToolchain
from keras_precision.runtimes.card import card
from keras_precision.runtimes.openvino import OpenvinoSession

pytest.importorskip("openvino", reason='pip install "keras-precision[openvino]"')
pytest.importorskip("onnxruntime", reason='pip install "keras-precision[openvino]"')


class Trained(NamedTuple):
    """A trained net and its data."""

    model: Any
    x: np.ndarray
    y: np.ndarray


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A convolutional net that tells images apart."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1), name="image"),
            layers.Conv2D(8, 3, activation="relu", name="stem"),
            layers.Conv2D(8, 3, activation="relu", name="body"),
            layers.Flatten(name="flat"),
            layers.Dense(3, activation="softmax", name="head"),
        ]
    )
    x, y = nets.images(np.random.default_rng(0), 256)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=4, verbose=0)
    return Trained(model, x, y)


@pytest.mark.parametrize("name", ["keras", "tf_keras"])
def test_inputs_in_float16_keep_their_names(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """A cast to float32, which float32 files do not need, does not rename the input that it reads."""
    library = pytest.importorskip(name)
    values = library.layers.Input((5,), dtype="float16", name="values")
    model = library.Model(
        values, library.layers.PReLU()(library.layers.Add()([values, library.layers.Dense(5)(values)]))
    )
    x = rng.normal(size=(16, 5)).astype("float16")
    kp.export_openvino(model, tmp_path / "model.xml", "float32")
    session = OpenvinoSession(tmp_path / "model.xml")
    assert [tensor.name for tensor in session.model.inputs] == ["values"]
    received = session.predict({"values": x.astype("float32")})
    np.testing.assert_allclose(received, model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.parametrize("plan", ["float32", "float16"])
def test_a_file_in_floats_answers_as_the_model_does(plan: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """Inputs and outputs have the model's names and order; the hint that the runtime is given is stated."""
    import keras

    model = nets.two_inputs(keras)
    x = [rng.random((3, 12, 12, 1)).astype("float32"), rng.random((3, 4)).astype("float32")]
    result = kp.export_openvino(model, tmp_path / "model.xml", plan)
    session = OpenvinoSession(tmp_path / "model.xml")
    assert [tensor.shape for tensor in session.model.outputs] == [(1, 3), (1, 1)]
    answers = session.predict({"z_image": x[0], "a_table": x[1]})
    for answer, wanted in zip(answers, model.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(answer, wanted, atol=1e-5 if plan == "float32" else 2e-3)
    assert "inference precision f32" in result.environment.backend
    products = [row for row in session.model.operators if row.kernel in ("Convolution", "FullyConnected", "MatMul")]
    assert [operator.precision for operator in products] == [plan] * 4
    assert result.value("size_bytes") == sum(each.stat().st_size for each in tmp_path.iterdir())
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.bin", "model.xml"]


@pytest.mark.slow
def test_an_int8_file_scores_as_the_model(trained: Trained, tmp_path: Path) -> None:
    """NNCF from samples, and our ranges from a calibration, both keep the accuracy; the environment is left alone."""
    before = dict(os.environ)
    calibration = kp.calibrate(trained.model, trained.x[:64])
    for data in (trained.x[:64], calibration):
        result = kp.export_openvino(
            trained.model, tmp_path / "model.xml", "int8", data, validation_data=(trained.x, trained.y)
        )
        assert result.value("accuracy") > 0.95
        assert result.value("agreement") >= 0.98
        assert result.value("operator_count", "Convolution int8") == 2
        assert result.plan.precision_of("stem") == result.plan.precision_of("body") == "int8"
        assert result.plan.precision_of("head") == "float32"  # its softmax
        timed = kp.benchmark(tmp_path / "model.xml", trained.x, min_calls=5, min_seconds=0.01)
        assert timed.value("latency_ms") > 0
    assert dict(os.environ) == before


@pytest.mark.parametrize("plan", ["float16", "int8"])
def test_a_file_says_how_it_was_made(trained: Trained, plan: str, tmp_path: Path) -> None:
    """The card is in the .xml, and graph, weights and answers are what they were without it."""
    path = tmp_path / "model.xml"
    calibration = kp.calibrate(trained.model, trained.x[:64])
    result = kp.export_openvino(trained.model, path, plan, calibration, validation_data=(trained.x, trained.y))
    told = card(path)
    assert told.plan == result.plan
    assert told.value("accuracy") == result.value("accuracy")
    scored = kp.evaluate(path, trained.x, trained.y)
    assert scored.value("accuracy") == told.value("accuracy")
    assert result.value("size_bytes") == sum(each.stat().st_size for each in tmp_path.iterdir())
    assert (tmp_path / "model.bin").stat().st_size < trained.model.count_params() * (2.2 if plan == "float16" else 1.5)
    if plan == "int8":
        assert told.value("calibration_maximum") == pytest.approx(trained.x[:64].max())


def test_a_layer_stays_in_float_if_the_plan_says_so(trained: Trained, tmp_path: Path) -> None:
    """NNCF leaves the layers alone that the plan names."""
    plan = kp.PrecisionPlan.deployment("int8", layers={"body": "float32", "head": "float32"})
    result = kp.export_openvino(trained.model, tmp_path / "model.xml", plan, trained.x[:64])
    assert result.plan.precision_of("body") == result.plan.precision_of("head") == "float32"
    assert result.plan.precision_of("stem") == "int8"
    assert result.value("operator_count", "Convolution int8") == 1
    assert result.value("operator_count", "Convolution float32") == 1


def test_no_threads_are_refused(tmp_path: Path) -> None:
    """Before any file is read."""
    with pytest.raises(InputError, match="Expected threads >= 1. Received: 0"):
        OpenvinoSession(tmp_path / "model.xml", threads=0)


def test_what_cannot_be_exported_is_refused(trained: Trained, tmp_path: Path) -> None:
    """Missing data, a precision that the format lacks, and a taken place: nothing is written."""
    with pytest.raises(DataError, match=r"representative data for int8.*Received: none"):
        kp.export_openvino(trained.model, tmp_path / "model.xml", "int8")
    with pytest.raises(UnknownPrecisionError, match=r"openvino: float32, float16, int8;"):
        kp.export_openvino(trained.model, tmp_path / "model.xml", "int16x8", trained.x)
    with pytest.raises(DestinationError, match=r"ends in '\.xml'"):
        kp.export_openvino(trained.model, tmp_path / "model.onnx", "float32")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "model.bin").write_text("mine")
    with pytest.raises(DestinationError, match=r"model\.bin', which exists"):
        kp.export_openvino(trained.model, tmp_path / "model.xml", "float32", overwrite=False)


def test_a_missing_package_is_named(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the pip line of the extra."""
    import sys

    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"'openvino'.*pip install \"keras-precision\[openvino\]\""):
        kp.export_openvino(trained.model, tmp_path / "model.xml", "float32")


def test_a_damaged_file_is_refused(trained: Trained, tmp_path: Path) -> None:
    """A foreign file, and one whose weights are missing, are told as such."""
    path = tmp_path / "model.xml"
    path.write_text("<net></net>")
    with pytest.raises(FileFormatError, match=r"expected an OpenVINO file"):
        kp.benchmark(path, trained.x)
    kp.export_openvino(trained.model, path, "float32")
    (tmp_path / "model.bin").unlink()
    with pytest.raises(FileFormatError, match=r"with its \.bin beside it"):
        kp.benchmark(path, trained.x)
    with pytest.raises(FileNotFoundError):
        OpenvinoSession(tmp_path / "none.xml")


def test_a_loop_is_read_from_the_float_file(tmp_path: Path, rng: np.random.Generator) -> None:
    """OpenVINO does not read the loop of ONNX: the file answers as the model all the same, and a calibration is refused."""
    import keras

    model = keras.Sequential(
        [keras.Input((5, 4), name="series"), keras.layers.GRU(6, name="memory"), keras.layers.Dense(2, name="head")]
    )
    x = rng.random((8, 5, 4)).astype("float32")
    kp.export_openvino(model, tmp_path / "model.xml", "float32")
    session = OpenvinoSession(tmp_path / "model.xml")
    assert [tensor.name for tensor in session.model.inputs] == ["series"]
    np.testing.assert_allclose(session.predict(x), model.predict(x, verbose=0), atol=1e-5)
    with pytest.raises(ExportError, match=r"OpenVINO reads.*layer 'memory'.*unroll=True, give samples"):
        kp.export_openvino(model, tmp_path / "other.xml", "int8", kp.calibrate(model, x))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.bin", "model.xml"]


def _pair(folder: Path, size: int, value: float) -> np.ndarray:
    """Save a graph of two weights as model.xml and model.bin, and return what it predicts for ones."""
    import openvino
    from openvino import opset13 as operators

    x = operators.parameter([1, 4], np.float32)
    first = operators.constant(np.full((4, size), value, np.float32))
    second = operators.constant(np.linspace(0, value, size).reshape(size, 1).astype(np.float32))
    product = operators.matmul(operators.matmul(x, first, False, False), second, False, False)
    openvino.save_model(openvino.Model([product], [x], "net"), folder / "model.xml", compress_to_fp16=False)
    return _prediction(folder / "model.xml")


SIGNALLED = """
import gc, signal, sys
from keras_precision.runtimes.openvino import OpenvinoSession

sessions = [OpenvinoSession(sys.argv[1]) for _ in range(3)]
while sessions:
    sessions.pop(0)
    gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
signal.raise_signal(signal.SIGUSR1)
"""


def test_signals_are_handled_after_files_were_run(tmp_path: Path) -> None:
    """On processors with AMX, OpenVINO changes the stack on which Python handles signals such as that of Ctrl-C."""
    _pair(tmp_path, 4, 1.0)
    completed = run_python(["-c", SIGNALLED, str(tmp_path / "model.xml")])
    assert (completed.ended_by, completed.output) == ("", "handled\n")


def _prediction(path: Path) -> np.ndarray:
    import openvino

    return np.asarray(openvino.Core().compile_model(path, "CPU")(np.ones((1, 4), np.float32))[0])


@pytest.mark.parametrize("sizes", [(3, 50), (50, 3), (8, 8)], ids=["larger", "smaller", "equal"])
@pytest.mark.parametrize("replaced", range(6))
def test_graph_and_weights_are_always_of_one_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int], replaced: int
) -> None:
    """Whenever an export over an older model is interrupted, its path holds the old model or the new one."""
    place, new = tmp_path / "place", tmp_path / "new"
    place.mkdir()
    new.mkdir()
    before, after = _pair(place, sizes[0], 1.0), _pair(new, sizes[1], 3.0)
    replace, left = os.replace, [replaced]

    def replace_or_stop(source: str, target: str) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_or_stop)
    with contextlib.suppress(KeyboardInterrupt):
        OpenvinoToolchain().place(new, place / "model.xml")
    np.testing.assert_allclose(_prediction(place / "model.xml"), before if replaced < 2 else after, rtol=1e-5)
    if replaced == 5:
        assert (place / "model.bin").read_bytes() == (new / "model.bin").read_bytes()
        assert (place / "model.xml").read_bytes() == (new / "model.xml").read_bytes()


def test_a_graph_that_openvino_refuses_is_not_tried_in_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a loop has two forms."""
    import keras

    def refuse(*arguments: Any) -> Any:
        raise ExportError("no such operator")

    monkeypatch.setattr("keras_precision.export.openvino._read", refuse)
    with pytest.raises(ExportError, match="no such operator"):
        kp.export_openvino(nets.mlp(keras), tmp_path / "model.xml", "float32")
