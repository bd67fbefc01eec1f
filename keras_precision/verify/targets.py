"""What can be asked for answers, under one interface: a model in memory, a saved model, a ``.tflite`` file."""

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
from keras_precision._adapters.data.samples import at_once, read_samples, stream_samples
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

__all__ = ["Array", "Opened", "Target", "has_suffix", "open_target"]

Array = npt.NDArray[Any]
Target = Any
"""A Keras model, or the path of a ``.keras``, ``.h5``, ``.hdf5`` or ``.tflite`` file."""


class Opened(ABC):
    """A target that can answer.

    Attributes:
        name: What results call it.
        outputs: Names of its outputs, in order; None where they are known only once it has answered.
    """

    name: str
    outputs: tuple[str, ...] | None

    @abstractmethod
    def inputs(self) -> Sequence[Input] | None:
        """Return what it takes; None where that is known only when it is called."""

    @abstractmethod
    def answers(self, arrays: list[Array], batch_size: int | None) -> list[Array]:
        """Return one array per output.

        Args:
            arrays: One array per input, of shape (n, ...).
            batch_size: Samples a call, where the target lets one choose; None for one call.
        """

    @abstractmethod
    def caller(self, inputs: Any, batch_size: int) -> tuple[Callable[[int], object], int]:
        """Return a function that answers the n-th batch, and how many samples a batch has."""

    @abstractmethod
    def facts(self) -> Iterator[Measurement]:
        """Yield what is known of the target without running it."""

    @abstractmethod
    def result(self, rows: Sequence[Measurement], sources: dict[str, str] | None = None) -> Result:
        """Return a result of these rows, with this target's plan and environment."""

    @abstractmethod
    def given(self, x: Any) -> list[Array]:
        """Return the arrays of samples that nothing is known of."""

    def pieces(self, x: Any, *, labelled: bool) -> Iterator[tuple[list[Array], Labels | None, bool]]:
        """Read samples, piece by piece where they come so.

        Args:
            x: Samples, in any form that ``fit`` takes.
            labelled: Whether labels are to be read from them, too.

        Yields:
            One array per input; the labels; and whether these are all samples at once.
        """
        wanted = self.inputs()
        if labelled:
            for samples, labels in stream_labelled(x, wanted):
                yield samples if wanted is not None else self.given(samples), labels, False
        elif wanted is not None:
            whole = at_once(x)
            for batch in stream_samples(x, wanted):
                yield list(batch.values()), None, whole
        elif at_once(x):
            yield self.given(x), None, True
        else:
            raise DataError(
                f"Expected arrays, or a dataset with labels in it, for the subclassed model '{self.name}'. "
                f"Received: {type(x).__name__} and labels apart."
            )


class _Model(Opened):
    def __init__(self, model: Any, adapter: KerasAdapter, size: int | None = None, name: str | None = None) -> None:
        self._model, self._adapter, self._size = model, adapter, size
        self.name = name or str(model.name)
        known = getattr(model, "output_names", None)
        self.outputs = tuple(known) if known and isinstance(model, adapter.functional_classes) else None
        self._keys: tuple[str, ...] = ()  # of a dict of inputs, where the model does not tell them

    def given(self, x: Any) -> list[Array]:
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

    def answers(self, arrays: list[Array], batch_size: int | None) -> list[Array]:
        packed = self._packed(arrays)
        if batch_size is None:
            found = self._adapter.predict_on_batch(self._model, packed)
        else:
            found = self._adapter.predict(self._model, packed, batch_size)
        if isinstance(found, Mapping):
            self.outputs = tuple(sorted(found))  # as Keras flattens them
        return _flat(found)

    def caller(self, inputs: Any, batch_size: int) -> tuple[Callable[[int], object], int]:
        wanted = self.inputs()
        if inputs is None:
            inputs = zeros_for(wanted or (), batch_size)
        arrays = self.given(inputs) if wanted is None else list(read_samples(inputs, wanted).values())
        count = len(arrays[0])
        starts = range(0, max(1, count - batch_size + 1), batch_size)  # whole batches: a new shape would compile anew

        def call(number: int) -> object:
            start = starts[number % len(starts)]
            return self._model.predict_on_batch(self._packed([array[start : start + batch_size] for array in arrays]))

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

    def _packed(self, arrays: list[Array]) -> Any:
        if isinstance(self._model, self._adapter.functional_classes):
            return self._adapter.packed(self._model, arrays)
        if self._keys:
            return dict(zip(self._keys, arrays, strict=True))
        return arrays[0] if len(arrays) == 1 else arrays


class _File(Opened):
    """A file that a runtime answers."""

    def __init__(self, path: Path, session: Session | RuntimeSession) -> None:
        self.name = path.name
        self._session = session
        self.outputs = tuple(tensor.name for tensor in self._session.model.outputs)

    def given(self, x: Any) -> list[Array]:
        return list(read_samples(x, self.inputs()).values())

    def inputs(self) -> Sequence[Input]:
        """Real numbers, as for the model that the file was made from; integers where the file takes them so."""
        tensors = self._session.model.inputs
        types = ["float32" if tensor.scale else tensor.dtype for tensor in tensors]
        shapes = [tuple(None if size < 0 else size for size in tensor.shape[1:]) for tensor in tensors]
        return [Input(tensor.name, shape, kind) for tensor, shape, kind in zip(tensors, shapes, types, strict=True)]

    def answers(self, arrays: list[Array], batch_size: int | None) -> list[Array]:
        return _flat(self._session.predict(arrays))

    def caller(self, inputs: Any, batch_size: int) -> tuple[Callable[[int], object], int]:
        given = zeros_for(self.inputs(), 1) if inputs is None else read_samples(inputs, self.inputs())
        samples = list(self._session.samples(given))
        return lambda number: self._session.run(samples[number % len(samples)]), len(samples[0][0])

    def facts(self) -> Iterator[Measurement]:
        yield Measurement(self.name, "size_bytes", self._session.model.size_bytes)

    def result(self, rows: Sequence[Measurement], sources: dict[str, str] | None = None) -> Result:
        return Result(self.name, tuple(rows), Environment.here(backend=self._session.model.runtime, sources=sources))


def has_suffix(target: Target, *suffixes: str) -> bool:
    """Tell whether a target is the path of a file of some kind.

    Args:
        target: A model or a path.
        *suffixes: Endings.

    Returns:
        False for a model.
    """
    return isinstance(target, str | os.PathLike) and Path(target).suffix in suffixes


def open_target(target: Target, *, threads: int = 1, workers: int = 1, unsafe: bool = False) -> Opened:
    """Open what is to answer.

    Args:
        target: A Keras model, or the path of a file.
        threads: Threads that one call of a ``.tflite`` file may use.
        workers: Interpreters of a ``.tflite`` file that answer side by side.
        unsafe: Whether Python code in a saved model may run.

    Returns:
        The target, opened.

    Raises:
        InputError: It is neither a model nor such a file.
        FileNotFoundError: There is no such file.
        FileFormatError: The file is damaged.
    """
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


def zeros_for(wanted: Sequence[Input], count: int) -> dict[str, Array]:
    """Return samples of zeros.

    Args:
        wanted: The inputs.
        count: How many.

    Returns:
        Input name to an array of shape (count, ...).

    Raises:
        DataError: The inputs are not known, or a size is free.
    """
    free = [each.name for each in wanted if None in each.shape]
    if free or not wanted:
        raise DataError(
            f"Expected samples to run. Received: none, for {f'an input of free size, {free[0]!r}' if free else 'a subclassed model'}."
        )
    return {each.name: np.zeros((count, *(size or 1 for size in each.shape)), each.dtype) for each in wanted}


def _flat(answers: Any) -> list[Array]:
    """One array per output, in the order in which Keras flattens them."""
    if isinstance(answers, Mapping):
        return [array for name in sorted(answers) for array in _flat(answers[name])]
    if isinstance(answers, list | tuple):
        return [array for each in answers for array in _flat(each)]
    return [np.asarray(answers)]
