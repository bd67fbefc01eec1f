"""Readers: what the package does with a file of each kind, and a sound one to damage."""

import importlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import keras_precision as kp
from keras_precision.core.errors import FileFormatError
from keras_precision.runtimes.registry import open_runtime

__all__ = ["KINDS", "Kind"]

SAVED = Path(__file__).parents[1] / "golden" / "saved"
METHODS = ("mse", "minmax", "percentile", "entropy")


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        make: Writes a sound one into an empty folder, and returns the path to read: the file, or a folder of files.
        read: Reads it, and shows what it has read.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], object]


def _copy_of(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        source, path = SAVED / name, folder / name
        return Path(shutil.copytree(source, path) if source.is_dir() else shutil.copyfile(source, path))

    return make


def _journal(folder: Path) -> Path:
    path, result = folder / "run.json.partial", kp.Result.load(SAVED / "result.json")
    path.write_text(result.log_header() + "".join(row.log_line() for row in result), encoding="utf-8")
    return path


def _model_file(package: str, name: str) -> Callable[[Path], Path]:
    """A model with nested, shared and recurrent layers."""

    def make(folder: Path) -> Path:
        keras, nets = importlib.import_module(package), importlib.import_module("nets")
        model = nets.conv(keras) if name.endswith(".h5") else nets.composite(keras)
        model.compile("adam", "mse")
        keras.models.save_model(model, str(folder / name))
        return folder / name

    return make


@cache
def _model() -> Any:
    return importlib.import_module("keras").models.load_model(SAVED / "float.keras")  # compiled, with its metric


def _export(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write = kp.export_onnx if name.endswith(".onnx") else kp.export_openvino
        write(_model(), folder / name, "int8", _samples()[0])
        return folder / name

    return make


def _samples() -> tuple[np.ndarray, np.ndarray]:
    """The samples with which the saved files were made, and their labels."""
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 96)
    return (random.normal(size=(96, 4)) + 2 * y[:, np.newaxis]).astype("float32"), y


def _show(path: Path) -> None:
    for form in ("text", "markdown", "html"):
        kp.render(path, form)


def _show_result(path: Path) -> None:
    str(kp.Result.load(path))
    _show(path)


def _use_calibration(path: Path) -> None:
    calibration = kp.Calibration.load(path)
    for method in METHODS:
        calibration.ranges(method)
    calibration.inputs()


def _run_tflite(path: Path) -> None:
    model = kp.edge.inspect(path, limit_s=20)
    kp.edge.predict(path, [np.ones((2, *entry.shape), entry.dtype) for entry in model.model_inputs])


def _run_other(path: Path) -> None:
    session = open_runtime(path)
    session.predict(
        [np.ones((2, *[size or 1 for size in entry.shape]), entry.dtype) for entry in session.model.model_inputs]
    )


def _continue_search(path: Path) -> None:
    """Search; where a file is damaged, do as the message says, until the search goes on, and raise the first message."""
    first = None
    for _ in range(len(list(path.rglob("*")))):
        try:
            _search(path)
            break
        except FileFormatError as error:
            first = first or error
            _follow(str(error))
    else:
        raise AssertionError(f"the advice does not help: {first}")
    if first is not None:
        raise first


def _follow(message: str) -> None:
    """Remove what a message says is to be removed."""
    folder = re.search(r"Remove the folder '([^']*)', and search again", message)
    if folder:
        shutil.rmtree(folder[1])
    elif "Remove it, and search again" in message:
        Path(message.partition(": expected a file")[0]).unlink()
    else:
        raise FileFormatError(message)


def _search(path: Path) -> None:
    x, y = _samples()
    tuner = kp.PrecisionTuner(
        _model(), kp.Calibration.load(SAVED / "calibration.npz"), (x[48:], y[48:]), ("int8", "int4"), max_trials=3,
        budget=kp.Budget(max_metric_drop=0.2), directory=path.parent, project_name=path.name, verbose=False,
    )  # fmt: skip
    tuner.search()
    tuner.best_plan  # noqa: B018 - reads the files of trials
    tuner.pareto_front()


KINDS = {
    "result": Kind(_copy_of("result.json"), _show_result),
    "comparison": Kind(_copy_of("comparison.json"), _show),
    "plan": Kind(_copy_of("plan.json"), lambda path: str(kp.PrecisionPlan.load(path))),
    "journal": Kind(_journal, lambda path: _show_result(path.with_suffix(""))),
    "calibration": Kind(_copy_of("calibration.npz"), _use_calibration),
    ".keras": Kind(_model_file("keras", "model.keras"), kp.load_model),
    ".keras, quantization-aware": Kind(_copy_of("aware.keras"), kp.load_model),
    ".keras of tf_keras": Kind(_model_file("tf_keras", "model.keras"), kp.load_model),
    ".h5": Kind(_model_file("keras", "model.h5"), kp.load_model),
    ".h5 of tf_keras": Kind(_model_file("tf_keras", "model.h5"), kp.load_model),
    ".tflite": Kind(_copy_of("int8.tflite"), _run_tflite),
    ".onnx": Kind(_export("model.onnx"), _run_other),
    ".xml and .bin": Kind(_export("model.xml"), _run_other),
    "search project": Kind(_copy_of("search"), _continue_search),
}
"""Every kind of file that the package reads."""
