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
from keras_precision._adapters.adapter import Input
from keras_precision._adapters.data.labels import Labels, stream_labelled
from keras_precision._adapters.data.samples import is_in_memory, read_samples, stream_samples
from keras_precision._adapters.layer_paths import plan_of
from keras_precision._adapters.model_file.load_model import SUFFIXES, load_model
from keras_precision.core.environment import Environment
from keras_precision.core.errors import DataError, InputError, ModelError, PlanError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.files import check_exists
from keras_precision.runtimes.registry import RUNTIME_FILES, open_runtime
from keras_precision.runtimes.session import RuntimeSession
from keras_precision.runtimes.tflite.session import Session

__all__ = ["Array", "Predictor", "Target", "has_suffix", "open_target"]

Array = npt.NDArray[Any]
Target = Any
"""A Keras model, or the path of a ``.keras``, ``.h5``, ``.hdf5`` or ``.tflite`` file."""


class Predictor(ABC):
    """An opened target, with its output names in order; these are None where only a prediction shows them."""

    name: str
    outputs: tuple[str, ...] | None

    @abstractmethod
    def inputs(self) -> Sequence[Input] | None:
        """Return the inputs; None where they are known only when it is called."""

    @abstractmethod
    def predict(self, arrays: list[Array], batch_size: int | None) -> list[Array]:
        """Return one array per output for one array of shape (n, ...) per input; batch size None is one call."""

    @abstractmethod
    def caller(self, inputs: Any, batch_size: int) -> tuple[Callable[[int], object], int]:
        """Return a function that predicts the n-th batch, and the number of samples in a batch."""

    @abstractmethod
    def static_rows(self) -> Iterator[Measurement]:
        """Yield the rows that need no run, such as the size."""

    @abstractmethod
    def result(self, rows: Sequence[Measurement], sources: dict[str, str] | None = None) -> Result:
        """Return a result of these rows, with the plan and environment of the target."""

    @abstractmethod
    def arrays_of(self, x: Any) -> list[Array]:
        """Return samples as one array per input, where the inputs may be unknown."""

    def batches(self, x: Any, *, labelled: bool) -> Iterator[tuple[list[Array], Labels | None, bool]]:
        """Yield one array per input, the labels if ``labelled``, and whether these are all samples at once."""
        inputs = self.inputs()
        if labelled:
            for samples, labels in stream_labelled(x, inputs):
                yield samples if inputs is not None else self.arrays_of(samples), labels, False
        elif inputs is not None:
            whole = is_in_memory(x)
            for batch in stream_samples(x, inputs):
                yield list(batch.values()), None, whole
        elif is_in_memory(x):
            yield self.arrays_of(x), None, True
        else:
            raise DataError(
                f"Expected arrays, or a dataset with labels in it, for the subclassed model '{self.name}'. "
                f"Received: {type(x).__name__} and separate labels. Pass arrays."
            )


class _Model(Predictor):
    def __init__(self, model: Any, adapter: KerasAdapter, size: int | None = None, name: str | None = None) -> None:
        self._model, self._adapter, self._size = model, adapter, size
        self.name = name or str(model.name)
        known = getattr(model, "output_names", None)
        self.outputs = tuple(known) if known and isinstance(model, adapter.functional_classes) else None
        self._keys: tuple[str, ...] = ()  # of a dict of inputs, where those of the model are unknown

    def arrays_of(self, x: Any) -> list[Array]:
        self._keys = tuple(x) if isinstance(x, Mapping) else ()
        arrays = x.values() if isinstance(x, Mapping) else x if isinstance(x, list | tuple) else [x]
        return [np.asarray(array) for array in arrays]

    def inputs(self) -> Sequence[Input] | None:
        try:
            return self._adapter.inputs(self._model)
        except ModelError:  # its inputs are known when it is called: it checks them itself
            if not self._adapter.is_model(self._model):
                raise
            return None

    def predict(self, arrays: list[Array], batch_size: int | None) -> list[Array]:
        packed = self._packed(arrays)
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
        arrays = self.arrays_of(inputs) if known is None else list(read_samples(inputs, known).values())
        count = len(arrays[0])
        starts = range(
            0, max(1, count - batch_size + 1), batch_size
        )  # whole batches: a new shape would be compiled again

        def call(number: int) -> object:
            start = starts[number % len(starts)]
            return self._model.predict_on_batch(self._packed([array[start : start + batch_size] for array in arrays]))

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

    def _packed(self, arrays: list[Array]) -> Any:
        if isinstance(self._model, self._adapter.functional_classes):
            return self._adapter.packed(self._model, arrays)
        if self._keys:
            return dict(zip(self._keys, arrays, strict=True))
        return arrays[0] if len(arrays) == 1 else arrays


class _File(Predictor):
    """A file with the session of its runtime."""

    def __init__(self, path: Path, session: Session | RuntimeSession) -> None:
        self.name = path.name
        self._session = session
        self.outputs = tuple(tensor.name for tensor in self._session.model.outputs)

    def arrays_of(self, x: Any) -> list[Array]:
        return list(read_samples(x, self.inputs()).values())

    def inputs(self) -> Sequence[Input]:
        """Return real inputs, as of the exported model; integers where the file takes them unscaled."""
        tensors = self._session.model.inputs
        types = ["float32" if tensor.scale else tensor.dtype for tensor in tensors]
        shapes = [tuple(None if size < 0 else size for size in tensor.shape[1:]) for tensor in tensors]
        return [Input(tensor.name, shape, kind) for tensor, shape, kind in zip(tensors, shapes, types, strict=True)]

    def predict(self, arrays: list[Array], batch_size: int | None) -> list[Array]:
        return _flat(self._session.predict(arrays))

    def caller(self, inputs: Any, batch_size: int) -> tuple[Callable[[int], object], int]:
        arrays = zeros_for(self.inputs(), 1) if inputs is None else read_samples(inputs, self.inputs())
        samples = list(self._session.samples(arrays))
        return lambda number: self._session.run(samples[number % len(samples)]), len(samples[0][0])

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


def zeros_for(inputs: Sequence[Input], count: int) -> dict[str, Array]:
    """Return zeros by input name, of shape (count, ...)."""
    free = [tensor.name for tensor in inputs if None in tensor.shape]
    if free or not inputs:
        raise DataError(
            f"Expected samples to run. Received: none, for {f'an input of free size, {free[0]!r}' if free else 'a subclassed model'}. Pass inputs."
        )
    return {tensor.name: np.zeros((count, *(size or 1 for size in tensor.shape)), tensor.dtype) for tensor in inputs}


def _flat(predictions: Any) -> list[Array]:
    """Return one array per output, in the order in which Keras flattens them."""
    if isinstance(predictions, Mapping):
        return [array for name in sorted(predictions) for array in _flat(predictions[name])]
    if isinstance(predictions, list | tuple):
        return [array for nested in predictions for array in _flat(nested)]
    return [np.asarray(predictions)]
