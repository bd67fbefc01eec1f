"""Session: interpreters on one ``.tflite`` file."""

import math
import os
import queue
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy.typing as npt

from keras_precision.core.errors import InputError
from keras_precision.core.system.captured_output import capture_output
from keras_precision.runtimes.session import Inputs, RuntimeSession
from keras_precision.runtimes.tflite.file import input_details, inspect, interpreter, output_details

__all__ = ["Inputs", "Session"]

Array = npt.NDArray[Any]

_SPAN = 32
"""Calls of a worker between two fetches of samples: few enough that all workers end at about the same time."""

_WORTHWHILE_S = 1e-4
"""A call shorter than this waits longer for Python's lock than it gains by running in parallel."""

_IN_CACHE = 16384
"""Numbers that are quantized at once: few enough to stay in the processor's cache over division, rounding and clipping."""


class Session(RuntimeSession):
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
        super().__init__(inspect(path))
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
        outputs = self._interpreters[0].run(self._quantized(sample))
        return [tensor.dequantize(array) for tensor, array in zip(self.model.outputs, outputs, strict=True)]

    def _calls(self, arrays: list[Array]) -> list[list[Array]]:
        """The outputs for all samples, call by call, by several interpreters at once where that is faster."""
        count, size = len(arrays[0]), self.model.batch_size
        first = [array[:size] for array in arrays]
        outputs = self._calls_of(self._interpreters[0], first)
        began = time.perf_counter()
        self._calls_of(self._interpreters[0], first)  # again: the first call loads weights and code
        workers = self._workers if time.perf_counter() - began > _WORTHWHILE_S else 1
        span = size * max(1, min(_SPAN, math.ceil(count / size) // (4 * workers)))
        parts = [[array[start : start + span] for array in arrays] for start in range(size, count, span)]
        return outputs + self._calls_in_parallel(parts, max(1, min(workers, len(parts))))

    def _calls_in_parallel(self, parts: list[list[Array]], workers: int) -> list[list[Array]]:
        """The outputs of all calls for the parts of the samples, in order, by so many interpreters."""
        self._open(workers)
        free: queue.SimpleQueue[_Interpreter] = queue.SimpleQueue()
        for opened in self._interpreters[:workers]:
            free.put(opened)

        def calls(part: list[Array]) -> list[list[Array]]:
            opened = free.get()
            try:
                return self._calls_of(opened, part)
            finally:
                free.put(opened)

        if workers == 1:
            return [call for part in parts for call in calls(part)]
        with ThreadPoolExecutor(workers, "keras_precision") as pool:
            return [call for part in pool.map(calls, parts) for call in part]

    def _open(self, count: int) -> None:
        """Open interpreters until there are ``count``."""
        with capture_output("interpreter"):
            while len(self._interpreters) < count:
                self._interpreters.append(_Interpreter(self._path, self._threads))

    def _calls_of(self, opened: "_Interpreter", part: list[Array]) -> list[list[Array]]:
        """The outputs of one interpreter for some samples, call by call, not dequantized."""
        size = self.model.batch_size
        numbers = max(array.size for array in part) // len(part[0])  # per sample
        block = size * max(1, _IN_CACHE // (size * max(1, numbers)))
        return [
            opened.run(batch)
            for start in range(0, len(part[0]), block)
            for batch in self._batches(self._quantized([array[start : start + block] for array in part]))
        ]

    def _quantized(self, arrays: Sequence[Array]) -> list[Array]:
        return [tensor.quantize(array) for tensor, array in zip(self.model.inputs, arrays, strict=True)]


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
