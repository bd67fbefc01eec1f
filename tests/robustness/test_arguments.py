"""Names that no file system takes, and a working folder that is gone: errors of this package, or "no such file", everywhere."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.cli.main import main

SAVED = Path(__file__).parents[1] / "golden" / "saved"
RESULT = kp.Result.load(SAVED / "result.json")
X = np.zeros((8, 4), "float32")

READ: dict[str, Callable[[str], object]] = {
    "a result": kp.Result.load,
    "a plan": kp.PrecisionPlan.load,
    "a comparison": kp.Comparison.load,
    "a calibration": kp.Calibration.load,
    "a report of": kp.render,
    "a model": lambda name: kp.load_model(f"{name}.keras"),
    "a .tflite file": kp.edge.inspect,
    "predictions of": lambda name: kp.edge.predict(name, X),
    "a micro file": lambda name: kp.check_micro(f"{name}.tflite"),
    "a TensorRT file": lambda name: kp.check_tensorrt(f"{name}.onnx"),
    "an OpenVINO file": lambda name: kp.evaluate(f"{name}.xml", X, np.zeros(8, int)),
}
WRITTEN: dict[str, Callable[[Any, str], object]] = {
    "a result": lambda model, name: RESULT.save(name),
    "a report": lambda model, name: kp.save_report(RESULT, name),
    "a .tflite file": lambda model, name: kp.export_tflite(model, f"{name}.tflite", "float32"),
    "an ONNX file": lambda model, name: kp.export_onnx(model, f"{name}.onnx", "float32"),
    "an OpenVINO file": lambda model, name: kp.export_openvino(model, f"{name}.xml", "float32"),
    "a Core ML package": lambda model, name: kp.export_coreml(model, f"{name}.mlpackage", "float32"),
    "a search": lambda model, name: kp.PrecisionTuner(model, X, X, directory=name),
}
COMMANDS = (
    ["report", "NAME"],
    ["report", str(SAVED / "result.json"), "-o", "NAME"],
    ["evaluate", "NAME.tflite", "--data", "NAME"],
    ["export", "NAME.keras", "-o", "NAME.tflite"],
    ["export", str(SAVED / "float.keras"), "-o", "NAME.tflite", "--precision", "float32"],
    ["benchmark", "NAME.tflite"],
    ["diagnose", "NAME"],
)


@pytest.fixture(scope="module")
def model() -> Any:
    """A model that is built."""
    return importlib.import_module("keras").models.load_model(SAVED / "float.keras")


@pytest.fixture(params=["a null character", "300 characters", "a folder that is gone"])
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name that cannot be that of a file."""
    folder = tmp_path / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    if request.param == "a folder that is gone":
        folder.rmdir()
        return "name"
    return "a\0b" if request.param == "a null character" else "n" * 300


@pytest.mark.parametrize("what", READ)
def test_what_is_read_is_missing(what: str, name: str) -> None:
    """As with any other name of no file."""
    with pytest.raises((kp.PrecisionError, FileNotFoundError)):
        READ[what](name)


@pytest.mark.parametrize("what", WRITTEN)
def test_what_is_written_is_refused(what: str, name: str, model: Any) -> None:
    """Before any work, with what cannot be written."""
    with pytest.raises(kp.PrecisionError, match="Received: "):
        WRITTEN[what](model, name)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_commands_end_with_2(command: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And one line."""
    assert main([word.replace("NAME", name) for word in command]) == 2
    assert capsys.readouterr().err.count("\n") == 1
