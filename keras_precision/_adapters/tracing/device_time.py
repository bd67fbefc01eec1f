"""How long the device computed, according to a trace."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from keras_precision.core.system.optional import require

__all__ = ["busy", "computing_ms"]

Interval = tuple[float, float]

_DEVICES = ("/device:GPU", "/device:TPU")
_STREAMS = ("Stream", "XLA Ops")  # of a device; its other lines show whole steps and modules
_HOST = "/host:CPU"
_THREADS = ("tf_Compute", "tf_XLAPjRtCpuClient", "tf_XLAEigen")  # in which TensorFlow and JAX compute on a processor
_MARKS = ("ThreadpoolListener", "end: ")  # events of a thread, not of an operator
_ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


def computing_ms(backend: str, folder: Path) -> float | None:
    """Return the milliseconds of a trace in which at least one operator ran; None where it cannot be read.

    Operators count on the accelerators, where the trace has any, else in the threads of the processor that compute.
    """
    read = {"tensorflow": _of_tensorflow, "jax": _of_jax, "torch": _of_torch}[backend]
    on_device: list[Interval] = []
    on_host: list[Interval] = []
    for is_device, interval in read(folder):
        (on_device if is_device else on_host).append(interval)
    intervals = on_device or on_host
    return busy(intervals) * 1e3 if intervals else None


def busy(intervals: Iterable[Interval]) -> float:
    """Return the length of the union of intervals.

    Example:
        >>> busy([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0)])
        4.0
    """
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def _of_torch(folder: Path) -> Iterator[tuple[bool, Interval]]:
    for event in json.loads((folder / "trace.json").read_text(encoding="utf-8"))["traceEvents"]:
        kind = event.get("cat")
        if event.get("ph") == "X" and (kind == "cpu_op" or kind in _ON_DEVICE):
            begin = float(event["ts"]) * 1e-6
            yield kind in _ON_DEVICE, (begin, begin + float(event["dur"]) * 1e-6)


def _of_jax(folder: Path) -> Iterator[tuple[bool, Interval]]:
    reader: Any = getattr(require("jax", extra="jax").profiler, "ProfileData", None)
    for path in folder.rglob("*.xplane.pb") if reader else ():
        for plane in reader.from_file(str(path)).planes:
            for line in plane.lines:
                if _computes(plane.name, line.name):
                    for event in line.events:
                        if not event.name.startswith(_MARKS):
                            begin = event.start_ns * 1e-9
                            yield plane.name != _HOST, (begin, begin + event.duration_ns * 1e-9)


def _of_tensorflow(folder: Path) -> Iterator[tuple[bool, Interval]]:
    protocol = require("tensorflow.tsl.profiler.protobuf.xplane_pb2", extra="tensorflow")
    for path in folder.rglob("*.xplane.pb"):
        for plane in protocol.XSpace.FromString(path.read_bytes()).planes:
            for line in plane.lines:
                if _computes(plane.name, line.name):
                    for event in line.events:
                        if not plane.event_metadata[event.metadata_id].name.startswith(_MARKS):
                            begin = line.timestamp_ns * 1e-9 + event.offset_ps * 1e-12
                            yield plane.name != _HOST, (begin, begin + event.duration_ps * 1e-12)


def _computes(plane: str, line: str) -> bool:
    """Whether a line of a plane has operators: a stream of a device, or a thread of the processor that computes."""
    return line.startswith(_STREAMS) if plane.startswith(_DEVICES) else plane == _HOST and line.startswith(_THREADS)
