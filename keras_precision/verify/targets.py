"""Predictor: one interface for a model in memory, a saved model, and a ``.tflite`` file."""

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import KerasAdapter, adapter_of
from keras_precision._adapters.data.samples import read_samples, zeros_for
from keras_precision._adapters.layer_paths import plan_of
from keras_precision._adapters.model_file.load_model import SUFFIXES, load_model
from keras_precision.core.environment import Environment
from keras_precision.core.errors import InputError, ModelError, PlanError
from keras_precision.core.model_inputs import Input
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.files import check_exists
from keras_precision.runtimes.registry import RUNTIME_FILES, open_runtime
from keras_precision.runtimes.session import RuntimeSession
from keras_precision.runtimes.tflite.session import Session

__all__ = ["Array", "Predictor", "Samples", "Target", "as_arrays", "has_suffix", "open_target", "sliced"]

Array = npt.NDArray[Any]
Target = Any
"""A Keras model, or the path of a ``.keras``, ``.h5``, ``.hdf5`` or ``.tflite`` file."""
Samples = Sequence[Array] | Mapping[str, Array]
"""One array of shape (n, ...) per input, by its name in the target, or in the order in which the caller has them."""


class Predictor(ABC):
    """An opened target, with its output names in order; these are None where only a prediction shows them."""

    name: str
    outputs: tuple[str, ...] | None
    is_model: bool

    @abstractmethod
    def inputs(self) -> Sequence[Input] | None:
        """Return the inputs; None where they are known only when it is called."""

    @abstractmethod
    def predict(self, samples: Samples, batch_size: int | None) -> list[Array]:
        """Return one array of shape (n, ...) per output; batch size None is one call."""

    @abstractmethod
    def caller(self, inputs: Any, batch_size: int) -> tuple[Callable[[int], object], int]:
        """Return a function that predicts the n-th batch, and the number of samples in a batch."""

    @abstractmethod
    def static_rows(self) -> Iterator[Measurement]:
        """Yield the rows that need no run, such as the size."""

    @abstractmethod
    def result(self, rows: Sequence[Measurement], sources: dict[str, str] | None = None) -> Result:
        """Return a result of these rows, with the plan and environment of the target."""


class _Model(Predictor):
    is_model = True

    def __init__(self, model: Any, adapter: KerasAdapter, size: int | None = None, name: str | None = None) -> None:
        self._model, self._adapter, self._size = model, adapter, size
        self.name = name or str(model.name)
        known = getattr(model, "output_names", None)
        self.outputs = tuple(known) if known and isinstance(model, adapter.functional_classes) else None

    def inputs(self) -> Sequence[Input] | None:
        try:
            return self._adapter.inputs(self._model)
        except ModelError:  # its inputs are known when it is called: it checks them itself
            if not self._adapter.is_model(self._model):
                raise
            return None

    def predict(self, samples: Samples, batch_size: int | None) -> list[Array]:
        packed = self._packed(samples)
        if batch_size is None:
            predictions = self._adapter.predict_on_batch(self._model, packed)
        else:
            predictions = self._adapter.predict(self._model, packed, batch_size)
        if isinstance(predictions, Mapping):
            self.outputs = tuple(sorted(predictions))  # as Keras flattens them
        return _flat(predictions)

    def caller(self, inputs: Any, batch_size: int) -> tuple[Callable[[int], object], int]:
        known = self.inputs()
        if inputs is None:
            inputs = zeros_for(known or (), batch_size)
        samples = as_arrays(inputs) if known is None else list(read_samples(inputs, known).values())
        count = len(next(iter(samples.values() if isinstance(samples, Mapping) else samples)))
        starts = range(
            0, max(1, count - batch_size + 1), batch_size
        )  # whole batches: a new shape would be compiled again

        def call(number: int) -> object:
            start = starts[number % len(starts)]
            return self._model.predict_on_batch(self._packed(sliced(samples, start, start + batch_size)))

        return call, min(batch_size, count)

    def static_rows(self) -> Iterator[Measurement]:
        if self._size is not None:
            yield Measurement(self.name, "size_bytes", self._size)

    def result(self, rows: Sequence[Measurement], sources: dict[str, str] | None = None) -> Result:
        plan: PrecisionPlan | None = None
        with contextlib.suppress(PlanError):  # a policy that no plan carries
            plan = plan_of(self._model)
        environment = self._adapter.compute.environment().with_sources(sources or {})
        return Result(self.name, tuple(rows), environment, plan)

    def _packed(self, samples: Samples) -> Any:
        known = self.inputs()
        if isinstance(samples, Mapping):
            if known is None:  # a subclassed model takes the keys of the caller
                return samples
            samples = [samples[entry.name] for entry in known]
        if isinstance(self._model, self._adapter.functional_classes):
            return self._adapter.packed(self._model, samples)
        return samples[0] if len(samples) == 1 else list(samples)


class _File(Predictor):
    """A file with the session of its runtime."""

    is_model = False

    def __init__(self, path: Path, session: RuntimeSession) -> None:
        self.name = path.name
        self._session = session
        self.outputs = tuple(tensor.name for tensor in self._session.model.outputs)

    def inputs(self) -> Sequence[Input]:
        return self._session.model.model_inputs

    def predict(self, samples: Samples, batch_size: int | None) -> list[Array]:
        return _flat(self._session.predict(samples))

    def caller(self, inputs: Any, batch_size: int) -> tuple[Callable[[int], object], int]:
        if inputs is None:
            zeros_for(self.inputs(), 1)  # raises where a size is free
            samples = [self._session.runnable_sample()]
        else:
            samples = list(self._session.samples(read_samples(inputs, self.inputs())))
        return lambda number: self._session.run(samples[number % len(samples)]), self._session.model.batch_size

    def static_rows(self) -> Iterator[Measurement]:
        yield Measurement(self.name, "size_bytes", self._session.model.size_bytes)

    def result(self, rows: Sequence[Measurement], sources: dict[str, str] | None = None) -> Result:
        return Result(self.name, tuple(rows), Environment.here(backend=self._session.model.runtime, sources=sources))


def has_suffix(target: Target, *suffixes: str) -> bool:
    """Return whether a target is the path of a file with one of these suffixes."""
    return isinstance(target, str | os.PathLike) and Path(target).suffix in suffixes


def open_target(target: Target, *, threads: int = 1, workers: int = 1, unsafe: bool = False) -> Predictor:
    """Open a Keras model or the path of a file; ``threads`` are of one call, ``workers`` interpreters that run at once."""
    if not isinstance(target, str | os.PathLike):
        return _Model(target, adapter_of(target))
    path = check_exists(target, "a model file")
    if has_suffix(path, ".tflite"):
        return _File(path, Session(path, threads=threads, workers=workers))
    if path.suffix in RUNTIME_FILES:
        return _File(path, open_runtime(path, threads=max(threads, workers)))
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"Expected a Keras model, or the path of a .keras, .h5 or .tflite file (or {', '.join(RUNTIME_FILES)}). Received: '{path}'."
        )
    model = load_model(path, unsafe=unsafe)
    return _Model(model, adapter_of(model), path.stat().st_size, path.name)


def as_arrays(x: Any) -> Samples:
    """Return samples for a target whose inputs are unknown, in the structure that they have."""
    if isinstance(x, Mapping):
        return {name: np.asarray(array) for name, array in x.items()}
    return [np.asarray(array) for array in (x if isinstance(x, list | tuple) else [x])]


def sliced(samples: Samples, start: int, stop: int) -> Samples:
    """Return some samples of each input."""
    if isinstance(samples, Mapping):
        return {name: array[start:stop] for name, array in samples.items()}
    return [array[start:stop] for array in samples]


def _flat(predictions: Any) -> list[Array]:
    """Return one array per output, in the order in which Keras flattens them."""
    if isinstance(predictions, Mapping):
        return [array for name in sorted(predictions) for array in _flat(predictions[name])]
    if isinstance(predictions, list | tuple):
        return [array for nested in predictions for array in _flat(nested)]
    return [np.asarray(predictions)]
