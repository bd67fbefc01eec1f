"""Trial: training steps at a batch size in a child process, under a memory limit."""

import math
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.errors import DataError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.experiments.channel import Channel
from keras_precision.experiments.run import build_in_precision
from keras_precision.experiments.task import import_function, leading_arrays, map_arrays

__all__ = ["OVER_LIMIT", "Trial"]

OVER_LIMIT = 77
"""The exit code of a child that exceeded the memory limit."""

_WATCH_S = 0.002
_WIDTHS = {"float16": 2, "bfloat16": 2, "float64": 8}


class Trial:
    """A model that takes single training steps at any batch size.

    ``make_batch`` returns ``(x, y)`` of a number of samples; ``limit`` is the most bytes of the process, None for no limit.
    """

    def __init__(
        self, channel: Channel, build: Any, make_batch: Any, precision: str | PrecisionPlan, limit: int | None
    ) -> None:
        self._make_batch = import_function(make_batch) if isinstance(make_batch, str) else make_batch
        self._model = build_in_precision(build, precision, 0)
        self._adapter = adapter_of(self._model)
        self._on_processor = not self._adapter.compute.device
        if limit is not None and self._on_processor:
            threading.Thread(target=_exit_above, args=(limit,), daemon=True).start()

    def plan(self) -> dict[str, Any]:
        """Return the estimated bytes of training by kind, their source, and the resident bytes now."""
        optimizer = self._model.optimizer
        if not getattr(optimizer, "built", False) and hasattr(optimizer, "build"):
            optimizer.build(self._model.trainable_variables)
        sizes: dict[str, Any] = dict(self._adapter.bytes_by_kind(self._model))
        sizes["activations"] = _activations(self._model)
        source = "peak of the process's resident set" if self._on_processor else self._adapter.compute.memory().name
        return {
            **sizes,
            "source": source,
            "on_processor": self._on_processor,
            "resident": psutil.Process().memory_info().rss,
        }

    def step(self, count: int, steps: int = 0) -> tuple[float, list[float]]:
        """Train one step, then ``steps`` timed ones; return peak memory in bytes, and the milliseconds of the timed ones."""
        x, y = self._batch(count)
        source = self._adapter.compute.memory()
        source.start()
        self._model.train_on_batch(x, y)
        self._model.train_on_batch(x, y)  # the first step creates the optimizer's slots on some backends
        times = []
        for _ in range(steps):
            began = time.perf_counter_ns()
            self._model.train_on_batch(x, y)
            times.append((time.perf_counter_ns() - began) / 1e6)
        peak = _high_water() if self._on_processor else (source.peak_mb() or 0.0) * 1e6
        return peak, times

    def _batch(self, count: int) -> tuple[Any, Any]:
        batch = self._make_batch(count)
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise DataError(f"Expected make_batch(n) to return (x, y). Received: {type(batch).__name__}.")
        x, y = map_arrays(np.asarray, tuple(batch))
        lengths = {len(array) for array in leading_arrays((x, y), 1)}
        if lengths != {count}:
            raise DataError(f"Expected make_batch({count}) to return {count} samples. Received: {sorted(lengths)}.")
        return x, y


def _activations(model: Any) -> int | None:
    """Return the bytes of all layers' outputs for one sample, stored for the backward pass; None if unknown."""
    total = 0
    for layer in layer_paths(model).values():
        try:
            output = layer.output
        except (AttributeError, ValueError, RuntimeError):  # never called, or called more than once
            return None
        width = _WIDTHS.get(str(layer.compute_dtype), 4)
        for tensor in output if isinstance(output, list | tuple) else [output]:
            total += width * math.prod(int(size or 1) for size in tuple(tensor.shape)[1:])
    return total


def _high_water() -> float:
    """Return the peak resident bytes of the process."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        fields: Mapping[str, str] = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return float(fields["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        return float(psutil.Process().memory_info().rss)


def _exit_above(limit: int) -> None:
    """Exit above the limit, before the kernel's out-of-memory killer ends this or another process."""
    process = psutil.Process()
    while process.memory_info().rss <= limit:
        time.sleep(_WATCH_S)
    os.write(2, b"the process exceeds its memory limit\n")
    os._exit(OVER_LIMIT)
