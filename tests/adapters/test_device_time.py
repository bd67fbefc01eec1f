"""Times in a trace: streams of a device before threads of the processor, overlaps counted once."""

import json
from pathlib import Path
from typing import Any

import pytest

from keras_precision._adapters.tracing.device_time import busy, computing_ms


def test_overlaps_are_counted_once() -> None:
    """The union of intervals, in any order."""
    assert busy([(5.0, 6.0), (0.0, 4.0), (1.0, 2.0), (3.0, 4.5)]) == 5.5
    assert busy([]) == 0.0


def event(kind: str, begin: float, duration: float) -> dict[str, Any]:
    """Return an event as torch.profiler writes it, in microseconds."""
    return {"ph": "X", "cat": kind, "ts": begin, "dur": duration, "name": "anything"}


def test_torch_kernels_count_before_operators_of_the_processor(tmp_path: Path) -> None:
    """Kernels of the device where there are any, and otherwise operators; annotations never."""
    on_host = [event("user_annotation", 0, 9000), event("cpu_op", 0, 2000), event("cpu_op", 1000, 2000)]
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": [{"ph": "M"}, *on_host]}), encoding="utf-8")
    assert computing_ms("torch", tmp_path) == pytest.approx(3.0)
    on_device = [event("kernel", 100, 500), event("gpu_memcpy", 1000, 250)]
    path.write_text(json.dumps({"traceEvents": [*on_host, *on_device]}), encoding="utf-8")
    assert computing_ms("torch", tmp_path) == pytest.approx(0.75)


def space(*lines: tuple[str, str, str, int, int]) -> bytes:
    """Return an XSpace with one event a line: plane, line, event, begin and duration in microseconds."""
    protocol = pytest.importorskip("tensorflow.tsl.profiler.protobuf.xplane_pb2")
    space = protocol.XSpace()
    for plane, line, name, begin, duration in lines:
        drawn = space.planes.add(name=plane)
        drawn.event_metadata[1].id, drawn.event_metadata[1].name = 1, name
        added = drawn.lines.add(name=line, timestamp_ns=1000)
        added.events.add(metadata_id=1, offset_ps=begin * 10**6, duration_ps=duration * 10**6)
    return bytes(space.SerializeToString())


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_streams_of_a_device_count_before_threads_of_the_processor(backend: str, tmp_path: Path) -> None:
    """Neither the drawing of whole steps, nor Python, nor marks of a thread pool count."""
    pytest.importorskip(backend)
    folder = tmp_path / "plugins" / "profile" / "now"
    folder.mkdir(parents=True)
    host = [
        ("/host:CPU", "python", "fit", 0, 9000),
        ("/host:CPU", "tf_Compute/7", "MatMul", 0, 2000),
        ("/host:CPU", "tf_XLAPjRtCpuClient/7", "ThreadpoolListener::StartRegion", 0, 7000),
        ("/host:CPU", "tf_XLAPjRtCpuClient/7", "dot.3", 1000, 2000),
    ]
    (folder / "vm.xplane.pb").write_bytes(space(*host))
    assert computing_ms(backend, tmp_path) == pytest.approx(3.0)
    device = [("/device:GPU:0", "Steps", "0", 0, 8000), ("/device:GPU:0", "Stream #7", "gemm", 500, 1500)]
    (folder / "vm.xplane.pb").write_bytes(space(*host, *device))
    assert computing_ms(backend, tmp_path) == pytest.approx(1.5)


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_folder_without_a_trace_is_unknown(backend: str, tmp_path: Path) -> None:
    """Nothing was written: unknown, and no time of zero."""
    pytest.importorskip(backend)
    assert computing_ms(backend, tmp_path) is None
