"""DeployedModel: deployed forms of one model, which predict and are timed in interleaved blocks."""

import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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
from keras_precision.runtimes.registry import open_runtime
from keras_precision.runtimes.session import RuntimeSession
from keras_precision.runtimes.tflite.session import Session

__all__ = ["RUNTIME_EXPORTS", "DeployedFile", "DeployedKeras", "DeployedModel", "DeployedTflite", "TimedCaller"]

Array = npt.NDArray[Any]
Call = Callable[[int], object]


class DeployedModel(ABC):
    """A deployed form of a model, named ``target:precision``, with the bytes of its file."""

    name: str
    size: int

    @abstractmethod
    def predictions(self) -> Array:
        """Return the predictions for all samples."""

    @abstractmethod
    def caller(self) -> Call:
        """Return a new function that predicts the n-th sample: two of them differ a little in speed."""

    @abstractmethod
    def batch_caller(self, size: int) -> tuple[Call, int]:
        """Return a function that predicts the n-th batch, and the samples of a call."""

    @abstractmethod
    def result(self) -> Result:
        """Return an empty result with plan and environment."""


class DeployedTflite(DeployedModel):
    """A ``.tflite`` file, on one thread."""

    def __init__(self, model: Any, precision: str, x: Any, representative: Any, folder: os.PathLike[str]) -> None:
        self.name = f"tflite:{precision}"
        path = Path(folder) / f"{precision}.tflite"
        self._written = export_tflite(model, path, precision, representative_dataset=representative)
        self._path, self.size = path, path.stat().st_size
        self._inputs = list(read_samples(x, adapter_of(model).inputs(model)).values())

    def predictions(self) -> Array:
        """Return the predictions for all samples, as real numbers."""
        return _single_output(self._session().predict(self._inputs), self.name)

    def caller(self) -> Call:
        """Return a function that predicts one sample."""
        session = self._session()
        samples = list(session.samples([array[:_SAMPLES] for array in self._inputs]))
        return lambda number: session.run(samples[number % len(samples)])

    def batch_caller(self, size: int) -> tuple[Call, int]:
        """Return a function that predicts a batch, and its size."""
        return self.caller(), 1

    def result(self) -> Result:
        """Return a result without measurements."""
        return Result(self.name, (), self._written.environment, self._written.plan, self._written.notes)

    def _session(self) -> RuntimeSession:
        return Session(self._path)


class DeployedFile(DeployedTflite):
    """A file of another runtime, on one thread."""

    def __init__(
        self, target: str, model: Any, precision: str, x: Any, representative: Any, folder: os.PathLike[str]
    ) -> None:
        self.name = f"{target}:{precision}"
        export, suffix = RUNTIME_EXPORTS[target]
        self._path = Path(folder) / f"{precision}{suffix}"
        self._written = export(model, self._path, precision, representative)
        self.size = self._written.value("size_bytes")
        self._inputs = list(read_samples(x, adapter_of(model).inputs(model)).values())

    def _session(self) -> RuntimeSession:
        return open_runtime(self._path)


RUNTIME_EXPORTS: dict[str, tuple[Callable[..., Result], str]] = {
    "onnx": (export_onnx, ".onnx"),
    "openvino": (export_openvino, ".xml"),
}
"""Targets other than TensorFlow Lite, with their export function and file suffix."""


class DeployedKeras(DeployedModel):
    """The Keras model itself, in a policy."""

    def __init__(self, model: Any, precision: str, x: Any) -> None:
        self.name = f"keras:{precision}"
        self._adapter, self._plan = adapter_of(model), PrecisionPlan.training(precision)
        self._original, self._model = model, apply_plan(model, self._plan)
        self._inputs = list(read_samples(x, self._adapter.inputs(model)).values())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            self._model.save(path)
            self.size = path.stat().st_size

    def predictions(self) -> Array:
        """Return the predictions for all samples, as real numbers."""
        return _single_output(
            self._adapter.predict(self._model, self._packed(self._model, self._inputs), 32), self.name
        )

    def caller(self) -> Call:
        """Return a function that predicts one sample."""
        return self._caller(apply_plan(self._original, self._plan), 1)[0]

    def batch_caller(self, size: int) -> tuple[Call, int]:
        """Return a function that predicts a batch, and its size."""
        return self._caller(self._model, size)

    def result(self) -> Result:
        """Return a result without measurements."""
        return Result(self.name, (), self._adapter.compute.environment(), self._plan)

    def _caller(self, model: Any, size: int) -> tuple[Call, int]:
        count = min(size, len(self._inputs[0]))
        starts = range(0, len(self._inputs[0]) - count + 1, count)[:_SAMPLES]

        def call(number: int) -> object:
            start = starts[number % len(starts)]
            return model.predict_on_batch(self._packed(model, [array[start : start + count] for array in self._inputs]))

        return call, count

    def _packed(self, model: Any, arrays: Sequence[Array]) -> Any:
        return self._adapter.packed(model, arrays)


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


_SAMPLES = 64  # that calls use in turn


def _single_output(predictions: Any, name: str) -> Array:
    if isinstance(predictions, list | dict):
        raise DataError(
            f"Expected a model with one output. Received: '{name}' with {len(predictions)}. Compare one model per output."
        )
    return np.asarray(predictions)
