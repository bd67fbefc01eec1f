"""The trace of a backend: the profiler that each framework brings, switched on for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_precision.core.system.optional import require

__all__ = ["traced"]


@contextmanager
def traced(backend: str, folder: Path) -> Iterator[None]:
    """Write a trace of what is computed meanwhile.

    Args:
        backend: ``"tensorflow"``, ``"jax"`` or ``"torch"``.
        folder: Where the trace goes, as the framework's own tools read it: those of TensorFlow and JAX
            for TensorBoard, that of PyTorch as ``trace.json`` for Perfetto.
    """
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
