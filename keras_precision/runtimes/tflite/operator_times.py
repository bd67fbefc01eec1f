"""How long each operator of a ``.tflite`` file takes."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_precision.core.errors import FileFormatError
from keras_precision.core.result import Measurement
from keras_precision.core.system.captured_output import captured
from keras_precision.core.system.timing import spread, time_calls
from keras_precision.runtimes.tflite.file import inspect, interpreter
from keras_precision.runtimes.tflite.subgraph import cut_operators

__all__ = ["OPERATOR_SOURCE", "operator_times"]

OPERATOR_SOURCE = (
    "each operator alone in a file of its own, on random input, since no interpreter tells times by operator"
)
_LEAST_SECONDS = 0.02


def operator_times(
    path: str | os.PathLike[str], *, threads: int, warmup: int, min_calls: int, min_seconds: float
) -> Iterator[Measurement]:
    """Time each operator of a file, alone."""
    operators = inspect(path).operators
    seconds = max(_LEAST_SECONDS if min_seconds else 0.0, min_seconds / max(1, len(operators)))
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(cut_operators(Path(path).read_bytes())):
            file = Path(folder) / f"{number}.tflite"
            file.write_bytes(content)
            median = None
            try:
                inspect(file)
            except FileFormatError:  # one that the runtime cannot run without its neighbours
                pass
            else:
                median = _median(_filled(file, threads), warmup, min_calls, seconds)
            yield Measurement(f"{number}:{operators[number].kernel}", "operator_ms", median)
            file.unlink()


def _median(opened: Any, warmup: int, min_calls: int, seconds: float) -> float:
    times = time_calls(lambda _: opened.invoke(), warmup=warmup, min_calls=min_calls, min_seconds=seconds)
    return spread(times).median


def _filled(file: Path, threads: int) -> Any:
    """An interpreter with random numbers in its inputs; zeros where they may be positions."""
    random = np.random.default_rng(0)
    with captured("interpreter"):
        opened = interpreter(file, threads=threads)
    for detail in opened.get_input_details():
        dtype, shape = np.dtype(detail["dtype"]), tuple(detail["shape"])
        if dtype.kind == "f":
            values = random.standard_normal(shape).astype(dtype)
        elif dtype.itemsize < 4 and dtype.kind in "iu":
            limits = np.iinfo(dtype)
            values = random.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        else:
            values = np.zeros(shape, dtype)
        opened.set_tensor(detail["index"], values)
    return opened
