"""Traces of the framework's own profiler."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_precision.core.system.optional import require

__all__ = ["traced"]


@contextmanager
def traced(backend: str, folder: Path) -> Iterator[None]:
    """Write a trace into a folder: for TensorBoard (TensorFlow, JAX), or ``trace.json`` for Perfetto (PyTorch)."""
    if backend == "torch":
        torch: Any = require("torch", extra="torch")
        with torch.profiler.profile() as profile:
            yield
        profile.export_chrome_trace(str(folder / "trace.json"))
        return
    if backend == "jax":
        profiler: Any = require("jax", extra="jax").profiler.trace(str(folder))
    else:
        profiler = require("tensorflow", extra="tensorflow").profiler.experimental.Profile(str(folder))
    with profiler:
        yield
