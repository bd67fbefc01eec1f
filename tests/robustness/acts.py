"""``python -m robustness.acts NAME FOLDER``: what is killed in bulk. It is done once, as the next run after a kill, then again and again."""

import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import keras_precision as kp

__all__ = ["ACTS", "READY"]

READY = "ready"
"""What is printed once an act has been done, and begins again."""

SAVED = Path(__file__).parents[1] / "golden" / "saved"
X = np.random.default_rng(0).normal(size=(96, 4)).astype("float32")
Y = np.random.default_rng(1).integers(0, 2, 96)


def build() -> Any:
    """A compiled model."""
    keras = importlib.import_module("keras")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def batch(count: int) -> tuple[Any, Any]:
    """So many samples, and their labels."""
    return np.zeros((count, 4), "float32"), np.zeros(count, int)


def _saved_model() -> Any:
    return importlib.import_module("keras").models.load_model(SAVED / "float.keras")


def _calibration() -> kp.Calibration:
    return kp.Calibration.load(SAVED / "calibration.npz")


def _fit(folder: Path) -> None:
    profiler = kp.PrecisionProfiler(path=folder / "run.json", verbose=0)
    build().fit(X, Y, batch_size=8, epochs=20, verbose=0, callbacks=[profiler])


def _search(folder: Path) -> None:
    """Continue what was interrupted, and search once more."""
    begun = sorted(folder.glob("search_*"))
    for project in (*(path.name for path in begun), f"search_{len(begun):03d}"):
        _tuner(folder, project, overwrite=False).search()


def _search_anew(folder: Path) -> None:
    _tuner(folder, "search", overwrite=True).search()


def _tuner(folder: Path, project: str, *, overwrite: bool) -> Any:
    return kp.PrecisionTuner(
        _saved_model(), _calibration(), (X, Y), ("int8", "int4"), max_trials=4, budget=kp.Budget(max_divergence=1.0),
        directory=folder, project_name=project, overwrite=overwrite, verbose=False,
    )  # fmt: skip


def _search_by_workers(folder: Path) -> None:
    from keras_precision.search.workers import run_workers

    number = len(list(folder.glob("search_*")))
    program = f"from robustness.acts import one_process; one_process({str(folder)!r}, 'search_{number:03d}')"
    run_workers([sys.executable, "-W", "ignore", "-c", program], workers=2)


def one_process(folder: str, project: str) -> None:
    """The chief or a worker of a search."""
    _tuner(Path(folder), project, overwrite=False).search()


ACTS: dict[str, Callable[[Path], object]] = {
    "fit": _fit,
    "calibrate": lambda folder: kp.calibrate(_saved_model(), X).save(folder / "calibration.npz"),
    "save": lambda folder: kp.Result.load(SAVED / "result.json").save(folder / "result.json"),
    "report": lambda folder: kp.save_report(kp.Result.load(SAVED / "result.json"), folder / "report.html"),
    "export_tflite": lambda folder: kp.export_tflite(_saved_model(), folder / "model.tflite", "int8", _calibration()),
    "export_onnx": lambda folder: kp.export_onnx(_saved_model(), folder / "model.onnx", "float32"),
    "export_openvino": lambda folder: kp.export_openvino(_saved_model(), folder / "model.xml", "float32"),
    "export_coreml": lambda folder: kp.export_coreml(_saved_model(), folder / "model.mlpackage", "float16"),
    "search": _search,
    "search with overwrite=True": _search_anew,
    "search, chief and two workers": _search_by_workers,
    "compare_training": lambda folder: kp.compare_training(
        build, (X, Y), (X, Y), ("float32", "mixed_bfloat16"), seeds=(0, 1), steps=4, batch_size=8, timing_seconds=1,
        path=folder / "comparison.json", verbose=False,
    ),
    "find_max_batch_size": lambda folder: kp.find_max_batch_size(
        build, batch, ("float32",), max_batch=64, verbose=False
    ),
}  # fmt: skip


def main() -> None:
    """Do an act, say so, and do it for ever."""
    warnings.simplefilter("ignore")
    name, folder = sys.argv[1:]
    while True:
        ACTS[name](Path(folder))
        print(READY, flush=True)


if __name__ == "__main__":
    main()
