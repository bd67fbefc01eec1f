"""Session: interpreters on one ``.tflite`` file."""

import math
import os
import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import DataError, InputError
from keras_precision.core.system.captured_output import capture_output
from keras_precision.runtimes.model_info import Tensor
from keras_precision.runtimes.tflite.file import input_details, inspect, interpreter, output_details

__all__ = ["Inputs", "Session"]

Array = npt.NDArray[Any]
Inputs = Array | Sequence[Array] | Mapping[str, Array]

_SPAN = 32
"""Calls of a worker between two fetches of samples: few enough that all workers end at about the same time."""

_WORTHWHILE_S = 1e-4
"""A call shorter than this waits longer for Python's lock than it gains by running in parallel."""

_IN_CACHE = 16384
"""Numbers that are quantized at once: few enough to stay in the processor's cache over division, rounding and clipping."""


class Session:
    """Interpreters on one file, for predictions.

    A file with a fixed batch size takes no other, and an interpreter runs one call at a time; but it
    releases Python's lock while it computes. Several of them, on one thread each, compute as many
    samples in parallel, with the same kernels, and so with bit-identical outputs.

    Args:
        path: A ``.tflite`` file; it is checked in a process of its own first, since a damaged
            file can crash the interpreter.
        threads: Threads that one call may use.
        workers: Interpreters that ``predict`` runs in parallel, all with tensors of their own.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: The file is damaged, or not supported by this interpreter.
        MissingExtraError: No interpreter is installed.
        InputError: A count is below 1.

    Example:
        >>> import keras_precision as kp
        >>> written = kp.export_tflite(model, "model.tflite", "float32")
        >>> Session("model.tflite", workers=2).predict(x_test).shape
        (64, 2)
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1, workers: int = 1) -> None:
        for name, count in (("threads", threads), ("workers", workers)):
            if count < 1:
                raise InputError(f"Expected {name} >= 1. Received: {count}.")
        self.model = inspect(path)
        self._path, self._threads, self._workers = path, threads, workers
        self._interpreters: list[_Interpreter] = []
        self._open(1)

    def run(self, sample: Sequence[Array]) -> list[Array]:
        """Run the model once.

        Args:
            sample: One array per input, of exactly the input's shape; real numbers are quantized
                if the input has integers.

        Returns:
            One array per output, as real numbers.
        """
        return self._dequantized(self._interpreters[0].run(self._quantized(sample)))

    def samples(self, inputs: Inputs) -> Iterator[list[Array]]:
        """Split inputs into batches of the size that the file takes.

        Args:
            inputs: One array of shape (n, ...), or one per input as a sequence (in the order of
                ``model.inputs``) or a mapping by name.

        Yields:
            One array per input, of the input's shape; the last batch is padded with zeros.

        Raises:
            DataError: Their count, shape or dtype does not fit the file.
        """
        return _batches(_arrays(inputs, self.model.inputs), self._batch)

    def predict(self, inputs: Inputs) -> Array | list[Array]:
        """Return the model's outputs for all samples.

        Args:
            inputs: As for ``samples``.

        Returns:
            Array of shape (n, ...), or a list of them if the model has several outputs.

        Raises:
            DataError: The inputs do not fit the file.
        """
        arrays = _arrays(inputs, self.model.inputs)
        count = len(arrays[0])
        first = [array[: self._batch] for array in arrays]
        outputs = [self._predict(self._interpreters[0], first)]
        began = time.perf_counter()
        self._predict(self._interpreters[0], first)  # again: the first call loads weights and code
        workers = self._workers if time.perf_counter() - began > _WORTHWHILE_S else 1
        calls = math.ceil(count / self._batch)
        span = self._batch * max(1, min(_SPAN, calls // (4 * workers)))
        parts = [[array[start : start + span] for array in arrays] for start in range(self._batch, count, span)]
        outputs += self._predict_in_parallel(parts, max(1, min(workers, len(parts))))
        joined = self._dequantized([np.concatenate(output)[:count] for output in zip(*outputs, strict=True)])
        return joined[0] if len(joined) == 1 else joined

    def _predict_in_parallel(self, parts: list[list[Array]], workers: int) -> list[list[Array]]:
        """The outputs for the parts of the samples, in order, by so many interpreters."""
        self._open(workers)
        free: queue.SimpleQueue[_Interpreter] = queue.SimpleQueue()
        for opened in self._interpreters[:workers]:
            free.put(opened)

        def predict(part: list[Array]) -> list[Array]:
            opened = free.get()
            try:
                return self._predict(opened, part)
            finally:
                free.put(opened)

        if workers == 1:
            return [predict(part) for part in parts]
        with ThreadPoolExecutor(workers, "keras_precision") as pool:
            return list(pool.map(predict, parts))

    @property
    def _batch(self) -> int:
        return max(1, self.model.inputs[0].shape[0])

    def _open(self, count: int) -> None:
        """Open interpreters until there are ``count``."""
        with capture_output("interpreter"):
            while len(self._interpreters) < count:
                self._interpreters.append(_Interpreter(self._path, self._threads))

    def _predict(self, opened: "_Interpreter", part: list[Array]) -> list[Array]:
        """The outputs of one interpreter for some samples, not dequantized."""
        numbers = max(array.size for array in part) // len(part[0])  # per sample
        block = self._batch * max(1, _IN_CACHE // (self._batch * max(1, numbers)))
        outputs = [
            opened.run(batch)
            for start in range(0, len(part[0]), block)
            for batch in _batches(self._quantized([array[start : start + block] for array in part]), self._batch)
        ]
        return [np.concatenate(output) for output in zip(*outputs, strict=True)]

    def _quantized(self, arrays: Sequence[Array]) -> list[Array]:
        return [tensor.quantize(array) for tensor, array in zip(self.model.inputs, arrays, strict=True)]

    def _dequantized(self, arrays: Sequence[Array]) -> list[Array]:
        return [tensor.dequantize(array) for tensor, array in zip(self.model.outputs, arrays, strict=True)]


class _Interpreter:
    """One interpreter, whose inputs and outputs have the dtypes of the file."""

    def __init__(self, path: str | os.PathLike[str], threads: int) -> None:
        self._interpreter = interpreter(path, threads=threads)
        self._inputs = [detail["index"] for _, detail in input_details(self._interpreter)]
        self._outputs = [detail["index"] for _, detail in output_details(self._interpreter)]

    def run(self, sample: Sequence[Array]) -> list[Array]:
        for index, values in zip(self._inputs, sample, strict=True):
            self._interpreter.set_tensor(index, values)
        self._interpreter.reset_all_variables()  # recurrent kernels retain their state between calls
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def _batches(arrays: Sequence[Array], size: int) -> Iterator[list[Array]]:
    for start in range(0, len(arrays[0]), size):
        yield [_padded(array[start : start + size], size) for array in arrays]


def _arrays(inputs: Inputs, tensors: Sequence[Tensor]) -> list[Array]:
    """One array per input, checked against the file's input tensors."""
    names = [tensor.name for tensor in tensors]
    if isinstance(inputs, Mapping):
        missing = [name for name in names if name not in inputs]
        if missing:
            raise DataError(
                f"Expected arrays for the inputs {names}. Received: {list(inputs)}, without {missing}. Pass one for every input."
            )
        arrays = [np.asarray(inputs[name]) for name in names]
    elif isinstance(inputs, np.ndarray):
        arrays = [inputs]
    else:
        arrays = [np.asarray(array) for array in inputs]
    if len(arrays) != len(tensors):
        raise DataError(f"Expected {len(tensors)} input(s): {names}. Received: {len(arrays)}.")
    for tensor, array in zip(tensors, arrays, strict=True):
        _check_array(tensor, array)
    if len({len(array) for array in arrays}) > 1:
        raise DataError(f"Expected as many samples for each input. Received: {[len(array) for array in arrays]}.")
    return arrays


def _check_array(tensor: Tensor, array: Array) -> None:
    expected = f"(n, {', '.join('any' if size < 0 else str(size) for size in tensor.shape[1:])})"
    fits = array.ndim == len(tensor.shape) and all(
        size in (-1, actual) for size, actual in zip(tensor.shape[1:], array.shape[1:], strict=True)
    )
    if not fits or len(array) == 0:
        raise DataError(f"Expected samples of shape {expected} for the input '{tensor.name}'. Received: {array.shape}.")
    if array.dtype.kind not in "biuf":
        raise DataError(f"Expected numbers for the input '{tensor.name}'. Received: dtype {array.dtype}.")


def _padded(part: Array, size: int) -> Array:
    short = size - len(part)
    return np.concatenate([part, np.zeros((short, *part.shape[1:]), part.dtype)]) if short else part
