"""Trial: one training step at a batch size, as a child process does it, under a limit of memory."""

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
from keras_precision.experiments.run import built
from keras_precision.experiments.task import found, mapped, pieces

__all__ = ["OVER_LIMIT", "Trial"]

OVER_LIMIT = 77
"""The exit code of a child that held more memory than it may."""

_WATCH_S = 0.002
_WIDTHS = {"float16": 2, "bfloat16": 2, "float64": 8}


class Trial:
    """A model that takes single steps at any batch size.

    Args:
        channel: The channel to the parent.
        build: What builds the compiled model.
        make_batch: Given a count, returns ``(x, y)`` of so many samples.
        precision: A policy, or a training plan.
        limit: Bytes that the process may hold; None for no limit of ours.
    """

    def __init__(
        self, channel: Channel, build: Any, make_batch: Any, precision: str | PrecisionPlan, limit: int | None
    ) -> None:
        self._make_batch = found(make_batch) if isinstance(make_batch, str) else make_batch
        self._model = built(build, precision, 0)
        self._adapter = adapter_of(self._model)
        self._on_processor = not self._adapter.compute.device
        if limit is not None and self._on_processor:
            threading.Thread(target=_end_above, args=(limit,), daemon=True).start()

    def plan(self) -> dict[str, Any]:
        """Return the bytes that training will hold, by kind, before it holds them, and what measures them."""
        optimizer = self._model.optimizer
        if not getattr(optimizer, "built", False) and hasattr(optimizer, "build"):
            optimizer.build(self._model.trainable_variables)
        kinds: dict[str, Any] = dict(self._adapter.bytes_by_kind(self._model))
        kinds["activations"] = _activations(self._model)
        source = "peak of the process's resident set" if self._on_processor else self._adapter.compute.memory().name
        return {
            **kinds,
            "source": source,
            "on_processor": self._on_processor,
            "held": psutil.Process().memory_info().rss,
        }

    def step(self, count: int, steps: int = 0) -> tuple[float, list[float]]:
        """Train one step, or a few to be timed.

        Args:
            count: Samples in the batch.
            steps: How many further steps are to be timed.

        Returns:
            Peak memory in bytes, and milliseconds of each step that was timed.
        """
        x, y = self._batch(count)
        source = self._adapter.compute.memory()
        source.start()
        self._model.train_on_batch(x, y)
        self._model.train_on_batch(x, y)  # the first one makes the optimizer's slots, on some backends
        times = []
        for _ in range(steps):
            began = time.perf_counter_ns()
            self._model.train_on_batch(x, y)
            times.append((time.perf_counter_ns() - began) / 1e6)
        peak = _high_water() if self._on_processor else (source.peak_mb() or 0.0) * 1e6
        return peak, times

    def _batch(self, count: int) -> tuple[Any, Any]:
        made = self._make_batch(count)
        if not isinstance(made, tuple | list) or len(made) != 2:
            raise DataError(f"Expected make_batch(n) to return (x, y). Received: {type(made).__name__}.")
        x, y = mapped(np.asarray, tuple(made))
        lengths = {len(array) for array in pieces((x, y), 1)}
        if lengths != {count}:
            raise DataError(f"Expected make_batch({count}) to return {count} samples. Received: {sorted(lengths)}.")
        return x, y


def _activations(model: Any) -> int | None:
    """Bytes of what each layer answers for one sample, kept for the backward pass; None if it is not known."""
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
    """The most that the process held since the peak was last reset."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        fields: Mapping[str, str] = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return float(fields["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        return float(psutil.Process().memory_info().rss)


def _end_above(limit: int) -> None:
    """End the process once it holds too much, before the machine does so, and perhaps to another one."""
    process = psutil.Process()
    while process.memory_info().rss <= limit:
        time.sleep(_WATCH_S)
    os.write(2, b"the process holds more memory than it may\n")
    os._exit(OVER_LIMIT)
