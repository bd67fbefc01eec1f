"""DeployedModel: deployed forms of one model, which predict and are timed in interleaved blocks."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import adapter_of
from keras_precision._adapters.data.samples import read_samples
from keras_precision.core.errors import DataError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.export.onnx.export import export_onnx
from keras_precision.export.openvino import export_openvino
from keras_precision.export.tflite import export_tflite
from keras_precision.mixed_precision.apply_plan import apply_plan
from keras_precision.verify.targets import Predictor, Samples, open_target, sliced

__all__ = ["EXPORTS", "DeployedModel", "TimedCaller", "deployed_file", "deployed_model", "single_output"]

Array = npt.NDArray[Any]
Call = Callable[[int], object]

EXPORTS: dict[str, tuple[Callable[..., Result], str]] = {
    "tflite": (export_tflite, ".tflite"),
    "onnx": (export_onnx, ".onnx"),
    "openvino": (export_openvino, ".xml"),
}
"""Targets that are files, with their export function and suffix."""

_BATCHES = 64  # that calls use in turn


@dataclass(frozen=True)
class DeployedModel:
    """A deployed form of a model, on one thread.

    Attributes:
        empty: Its result without measurements, named ``target:precision``.
        size: The bytes of its file.
        samples: The samples, by the names that inputs have in its file, or in the order of the model.
        reopen: Opens it once more: two openings differ a little in speed.
        opened: It, opened.
    """

    empty: Result
    size: int
    samples: Samples
    reopen: Callable[[], Predictor]
    opened: Predictor

    @property
    def name(self) -> str:
        """Target and precision."""
        return self.empty.name

    def predictions(self) -> Array:
        """Return the predictions for all samples, as real numbers."""
        return single_output(self.opened.predict(self.samples, 32), self.name)

    def caller(self) -> Call:
        """Return a function that predicts the n-th sample, of the form opened anew."""
        return self.reopen().caller(sliced(self.samples, 0, _BATCHES), 1)[0]

    def batch_caller(self, size: int) -> tuple[Call, int]:
        """Return a function that predicts the n-th batch, and the samples of a call."""
        return self.opened.caller(sliced(self.samples, 0, _BATCHES * size), size)


def deployed_file(target: str, model: Any, precision: str, x: Any, representative: Any, folder: Path) -> DeployedModel:
    """Export a model to a file of a target, and open it."""
    export, suffix = EXPORTS[target]
    path, name = folder / f"{precision}{suffix}", f"{target}:{precision}"
    written = export(model, path, precision, representative)
    samples, reopen = read_samples(x, adapter_of(model).inputs(model)), partial(open_target, path)
    empty = Result(name, (), written.environment, written.plan, written.notes)
    return DeployedModel(empty, int(written.value("size_bytes")), samples, reopen, reopen())


def deployed_model(model: Any, precision: str, x: Any) -> DeployedModel:
    """Apply a policy to the Keras model itself."""
    adapter, plan = adapter_of(model), PrecisionPlan.training(precision)
    copied = apply_plan(model, plan)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        copied.save(path)
        size = path.stat().st_size
    empty = Result(f"keras:{precision}", (), adapter.compute.environment(), plan)
    samples = list(read_samples(x, adapter.inputs(model)).values())
    return DeployedModel(empty, size, samples, lambda: open_target(apply_plan(model, plan)), open_target(copied))


class TimedCaller:
    """Times calls of a function, with the interface of a training process; the function gets the number of the call."""

    def __init__(self, call: Call) -> None:
        self._call, self._number = call, 0

    def ask(self, method: str, *args: Any, deadline: float | None = None) -> list[float]:
        """Return the milliseconds of so many calls for any method but ``"stop"``; the deadline is ignored, as calls are short."""
        times = []
        for _ in range(args[0] if args else 0):
            began = time.perf_counter_ns()
            self._call(self._number)
            times.append((time.perf_counter_ns() - began) / 1e6)
            self._number += 1
        return times

    def close(self) -> None:
        """Do nothing: there is no process."""


def single_output(predictions: list[Array], name: str) -> Array:
    """Return the predictions of the one output; raise where there are several."""
    if len(predictions) != 1:
        raise DataError(
            f"Expected a model with one output. Received: '{name}' with {len(predictions)}. Compare one model per output."
        )
    return np.asarray(predictions[0])
