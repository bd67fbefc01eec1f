"""evaluate and benchmark: a model in memory, a ``.keras`` file and a ``.tflite`` file under one interface."""

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision import edge
from keras_precision._adapters import KerasAdapter, adapter_for_file, adapter_of
from keras_precision._adapters.keras import Input
from keras_precision._adapters.model_file import SUFFIXES, load_model
from keras_precision._adapters.paths import plan_of
from keras_precision._adapters.samples import read_samples
from keras_precision.environment import Environment
from keras_precision.errors import DataError, InputError, ModelError, PlanError
from keras_precision.latency import latency_rows, latency_source
from keras_precision.plan import PrecisionPlan
from keras_precision.result import Measurement, Result
from keras_precision.runtimes import RUNTIME_FILES, open_runtime
from keras_precision.scores import SCORES, agreement
from keras_precision.timing import time_calls

__all__ = ["benchmark", "evaluate"]

Array = npt.NDArray[Any]
Target = Any
"""A Keras model, or the path of a ``.keras``, ``.h5`` or ``.tflite`` file."""


def evaluate(
    target: Target,
    x: Any,
    y: npt.ArrayLike,
    metrics: Sequence[Any] = ("accuracy",),
    *,
    batch_size: int = 32,
    reference: Any = None,
) -> Result:
    """Score a model, or a file, on labelled samples.

    Every target is scored on its predictions by the same code, so that the figures of a Keras
    model and of the file made from it can be compared. Predictions of integer files are
    dequantized first.

    Args:
        target: A Keras model, or the path of a ``.keras``, ``.h5`` or ``.tflite`` file.
        x: Samples: an array of shape (n, ...), or one array per input as a tuple or dict.
        y: Labels, as the metrics take them.
        metrics: Names of metrics (``"accuracy"`` chooses the kind of accuracy by the shapes), or
            Keras metric objects.
        batch_size: Samples per call of a Keras model; a ``.tflite`` file takes as many as it says.
        reference: A target, or its predictions, to compare answers with: adds ``agreement``.

    Returns:
        A result with each metric, ``samples``, ``agreement`` if asked for, and ``size_bytes`` of a file.

    Raises:
        InputError: A metric is unknown, or the target is neither a model nor such a file.
        FileFormatError: The file is damaged.
        FileNotFoundError: There is no such file.
        DataError: Samples or labels do not fit the model.

    Example:
        >>> result = evaluate(model, x_test, y_test, reference=model)
        >>> result.value("agreement")
        1.0
    """
    scorers = [_scorer(metric) for metric in ([metrics] if isinstance(metrics, str) else metrics)]
    opened = _open(target)
    predictions = opened.predict(x, batch_size)
    if isinstance(predictions, list | dict):
        raise DataError(
            f"Expected a model with one output. Received: '{opened.name}' with {len(predictions)}. Score a model for each output."
        )
    labels = len(np.asarray(y))
    if labels != len(predictions):
        raise DataError(
            f"Expected as many labels as samples. Received: {labels} labels for {len(predictions)} samples."
        )
    rows = [Measurement(opened.name, name, score(y, predictions)) for name, score in scorers]
    if reference is not None:
        expected = reference if isinstance(reference, np.ndarray) else _open(reference).predict(x, batch_size)
        rows.append(Measurement(opened.name, "agreement", agreement(expected, predictions)))
    rows.append(Measurement(opened.name, "samples", len(predictions)))
    return opened.result([*rows, *opened.facts()])


def benchmark(
    target: Target,
    inputs: Any,
    *,
    batch_size: int = 1,
    warmup: int = 10,
    min_calls: int = 50,
    min_seconds: float = 1.0,
) -> Result:
    """Time the answers of a model, or of a file.

    A Keras model is called through ``predict_on_batch``, its compiled path, which returns NumPy
    arrays and so waits for the device. A ``.tflite`` file runs on one thread.

    Args:
        target: A Keras model, or the path of a ``.keras``, ``.h5`` or ``.tflite`` file.
        inputs: Samples, as for ``evaluate``, that are run in turn.
        batch_size: Samples per call; a ``.tflite`` file with a fixed batch takes what it says.
        warmup: Calls before timing begins.
        min_calls: Calls timed at the least.
        min_seconds: Seconds timed at the least.

    Returns:
        A result with ``latency_ms`` (median), ``latency_p95_ms``, ``latency_samples`` (calls
        timed), ``samples_per_second``, and ``size_bytes`` of a file.

    Raises:
        InputError: A count is out of range, or the target is neither a model nor such a file.
        FileFormatError: The file is damaged.
        FileNotFoundError: There is no such file.
        DataError: The samples do not fit the model.

    Example:
        >>> result = benchmark(model, x_test, min_seconds=0.1)
        >>> result.value("latency_ms") > 0
        True
    """
    if batch_size < 1:
        raise InputError(f"Expected batch_size >= 1. Received: {batch_size}.")
    opened = _open(target)
    call, per_call = opened.caller(inputs, batch_size)
    times = time_calls(call, warmup=warmup, min_calls=min_calls, min_seconds=min_seconds)
    rows = [*latency_rows(opened.name, times, per_call), *opened.facts()]
    return opened.result(rows, {"latency_ms": latency_source(per_call, warmup)})


class _Opened(ABC):
    """A target that can answer."""

    name: str

    @abstractmethod
    def predict(self, x: Any, batch_size: int) -> Any:
        """Return the answers to all samples."""

    @abstractmethod
    def caller(self, inputs: Any, batch_size: int) -> tuple[Callable[[int], object], int]:
        """Return a function that answers the n-th batch, and how many samples a batch has."""

    @abstractmethod
    def facts(self) -> Iterator[Measurement]:
        """Yield what is known of the target without running it."""

    @abstractmethod
    def result(self, rows: Sequence[Measurement], sources: dict[str, str] | None = None) -> Result:
        """Return a result of these rows, with this target's plan and environment."""


class _Model(_Opened):
    def __init__(self, model: Any, adapter: KerasAdapter, size: int | None = None, name: str | None = None) -> None:
        self._model, self._adapter, self._size = model, adapter, size
        self.name = name or str(model.name)

    def predict(self, x: Any, batch_size: int) -> Any:
        arrays, pack = self._samples(x)
        return self._adapter.predict(self._model, pack(arrays), batch_size)

    def caller(self, inputs: Any, batch_size: int) -> tuple[Callable[[int], object], int]:
        arrays, pack = self._samples(inputs)
        count = len(arrays[0])
        starts = range(0, max(1, count - batch_size + 1), batch_size)  # whole batches: a new shape would compile anew

        def call(number: int) -> object:
            start = starts[number % len(starts)]
            return self._model.predict_on_batch(pack([array[start : start + batch_size] for array in arrays]))

        return call, min(batch_size, count)

    def facts(self) -> Iterator[Measurement]:
        if self._size is not None:
            yield Measurement(self.name, "size_bytes", self._size)

    def result(self, rows: Sequence[Measurement], sources: dict[str, str] | None = None) -> Result:
        plan: PrecisionPlan | None = None
        with contextlib.suppress(PlanError):  # a policy that no plan carries
            plan = plan_of(self._model)
        environment = self._adapter.compute.environment().with_sources(sources or {})
        return Result(self.name, tuple(rows), environment, plan)

    def _samples(self, x: Any) -> tuple[list[Array], Callable[[list[Array]], Any]]:
        """One array per input, and what puts such arrays into the structure that the model takes."""
        try:
            inputs = self._adapter.inputs(self._model)
        except ModelError:  # its inputs are known when it is called: it checks them itself
            return _as_given(x)
        return list(read_samples(x, inputs).values()), lambda arrays: self._adapter.packed(self._model, arrays)


def _as_given(x: Any) -> tuple[list[Array], Callable[[list[Array]], Any]]:
    if isinstance(x, Mapping):
        return [np.asarray(array) for array in x.values()], lambda arrays: dict(zip(x, arrays, strict=True))
    if isinstance(x, list | tuple):
        return [np.asarray(array) for array in x], list
    return [np.asarray(x)], lambda arrays: arrays[0]


class _TfliteFile(_Opened):
    def __init__(self, path: str, session: edge.Session) -> None:
        self.name = Path(path).name
        self._session = session

    def predict(self, x: Any, batch_size: int) -> Any:
        return self._session.predict(self._samples(x))

    def caller(self, inputs: Any, batch_size: int) -> tuple[Callable[[int], object], int]:
        samples = list(self._session.samples(self._samples(inputs)))
        return lambda number: self._session.run(samples[number % len(samples)]), len(samples[0][0])

    def _samples(self, x: Any) -> Any:
        """Real numbers, as for the model that the file was made from; integers where the file takes them so."""
        tensors = self._session.model.inputs
        types = ["float32" if tensor.scale else tensor.dtype for tensor in tensors]
        shapes = [tuple(None if size < 0 else size for size in tensor.shape[1:]) for tensor in tensors]
        wanted = [Input(tensor.name, shape, kind) for tensor, shape, kind in zip(tensors, shapes, types, strict=True)]
        return read_samples(x, wanted)

    def facts(self) -> Iterator[Measurement]:
        yield Measurement(self.name, "size_bytes", self._session.model.size_bytes)

    def result(self, rows: Sequence[Measurement], sources: dict[str, str] | None = None) -> Result:
        return Result(self.name, tuple(rows), Environment.here(backend=self._session.model.runtime, sources=sources))


def _open(target: Target) -> _Opened:
    if not isinstance(target, str | os.PathLike):
        return _Model(target, adapter_of(target))
    path = Path(target)
    if not path.exists():
        raise FileNotFoundError(f"Expected a model file. Received: '{path}', which does not exist.")
    if path.suffix == ".tflite":
        return _TfliteFile(str(path), edge.Session(path))
    if path.suffix in RUNTIME_FILES:
        return _TfliteFile(str(path), open_runtime(path))
    if path.suffix in SUFFIXES:
        return _loaded(path)
    raise InputError(
        f"Expected a Keras model, or the path of a .keras, .h5 or .tflite file (or {', '.join(RUNTIME_FILES)}). Received: '{path}'."
    )


def _loaded(path: Path) -> _Model:
    model = load_model(path)
    return _Model(model, adapter_of(model), path.stat().st_size, path.name)


def _scorer(metric: Any) -> tuple[str, Callable[[Any, Any], float]]:
    """The name that a metric has in results, and the function that computes it."""
    if isinstance(metric, str) and metric in SCORES:
        return SCORES[metric].__name__, SCORES[metric]
    keras = adapter_for_file().keras
    try:
        known = keras.metrics.get(metric) if isinstance(metric, str) else metric
    except ValueError as error:
        raise InputError(
            f"Expected metrics among {', '.join(sorted(SCORES))}, or any of Keras. Received: {metric!r}."
        ) from error
    if not hasattr(known, "update_state"):  # a function of (y_true, y_pred)
        known = keras.metrics.MeanMetricWrapper(known, name=getattr(known, "__name__", str(metric)))

    def score(y: Any, predictions: Any) -> float:
        known.reset_state()
        known.update_state(y, predictions)
        return float(keras.ops.convert_to_numpy(known.result()))

    return str(known.name), score
