"""Runner: ``.tflite`` files in memory, run on samples, for their outputs and latencies."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.system.captured_output import capture_output
from keras_precision.runtimes.session import join_outputs
from keras_precision.runtimes.tflite.abort_check import check_runs_here
from keras_precision.runtimes.tflite.file import input_details, output_details, runtime, tensor_of

__all__ = ["InMemoryInterpreter", "interleaved_latencies", "predict_in_memory"]

Array = npt.NDArray[Any]

_MOST_THREADS = 8
_FEW = 32  # samples for which a second interpreter is not worth opening


class InMemoryInterpreter:
    """An interpreter on a file, for one sample at a time, that this package has just quantized; it raises ExportError."""

    def __init__(self, content: bytes) -> None:
        check_runs_here(content)
        module, _ = runtime()
        self._opened = module.Interpreter(model_content=content, num_threads=1)
        self._opened.allocate_tensors()
        self._inputs = [
            (name, detail["index"], tensor_of(name, detail)) for name, detail in input_details(self._opened)
        ]
        self._outputs = [(detail["index"], tensor_of(name, detail)) for name, detail in output_details(self._opened)]

    def run(self, samples: Mapping[str, Array], start: int, stop: int) -> list[Array]:
        """Return one array per output, of shape (stop - start, ...), as real numbers; ``samples`` is by name of input."""
        inputs = [(index, tensor.quantize(samples[name][start:stop])) for name, index, tensor in self._inputs]
        calls = []
        for number in range(stop - start):
            self.call([(index, values[number : number + 1]) for index, values in inputs])
            calls.append([self._opened.get_tensor(index) for index, _ in self._outputs])
        return join_outputs(calls, [tensor for _, tensor in self._outputs], 1)

    def call(self, inputs: Sequence[tuple[int, Array]]) -> None:
        """Run the file once on pairs of the index of an input and its quantized values."""
        for index, values in inputs:
            self._opened.set_tensor(index, values)
        self._opened.reset_all_variables()
        self._opened.invoke()

    def sample(self, samples: Mapping[str, Array], number: int) -> list[tuple[int, Array]]:
        """Return one sample as an argument of ``call``."""
        return [(index, tensor.quantize(samples[name][number : number + 1])) for name, index, tensor in self._inputs]


def predict_in_memory(content: bytes, samples: Mapping[str, Array], threads: int = 1) -> list[Array]:
    """Return one array of shape (n, ...) per output, as real numbers; interpreters release Python's lock during a call."""
    count = len(next(iter(samples.values())))
    parts = max(1, min(threads, _MOST_THREADS, count // _FEW))
    with capture_output("interpreter"):
        opened = [InMemoryInterpreter(content) for _ in range(parts)]
    edges = [count * part // parts for part in range(parts + 1)]
    if parts == 1:
        return opened[0].run(samples, 0, count)
    with ThreadPoolExecutor(parts) as pool:
        pieces = list(pool.map(lambda part: opened[part].run(samples, edges[part], edges[part + 1]), range(parts)))
    return [np.concatenate(output) for output in zip(*pieces, strict=True)]


def interleaved_latencies(
    contents: Sequence[bytes], samples: Mapping[str, Array], *, rounds: int = 40, warmup: int = 5
) -> list[float]:
    """Return the median latency of each file in ms on one thread, from interleaved calls: other load slows all alike."""
    with capture_output("interpreter"):
        opened = [InMemoryInterpreter(content) for content in contents]
    count = len(next(iter(samples.values())))
    times: list[list[float]] = [[] for _ in opened]
    for number in range(warmup + rounds):
        for seconds, runner in zip(times, opened, strict=True):
            sample = runner.sample(samples, number % count)
            began = time.perf_counter()
            runner.call(sample)
            seconds.append(time.perf_counter() - began)
    return [float(np.median(seconds[warmup:])) * 1e3 for seconds in times]
