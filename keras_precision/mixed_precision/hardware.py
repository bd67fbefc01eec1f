"""hardware: the number formats that this machine accelerates, by flags of the processor and by measurement."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np

from keras_precision._adapters import KerasAdapter, adapter_for_file
from keras_precision._adapters.backend import Compute
from keras_precision.core.environment import Environment
from keras_precision.core.formats.fit import FORMATS, Format
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.timing import spread, time_calls

__all__ = ["hardware"]

_ROUNDS, _WARMUP, _SLOWEST_MS = 9, 3, 150.0
_SMALL = {"matmul": 768, "image": 28, "batch": 8, "channels": 64}  # a few ms per operation in float32 on two cores
_LARGE = {"matmul": 4096, "image": 56, "batch": 64, "channels": 128}
_MEASURED = ("float32", "tf32", "bfloat16", "float16")


def hardware(measure: bool = False) -> Result:
    """Report which number formats this machine accelerates, optionally with measurements.

    The same processor can be fast in a format with one backend and slow with another. The row ``accelerated``
    (1 or 0) of a format is what the flags of the processor promise. The rows ``matmul_ms``, ``convolution_ms`` and
    ``depthwise_ms`` are times with the current Keras backend: medians of rounds with interleaved formats. float32 is
    measured without TF32, where the backend can disable it, and ``tf32`` where the device has it.

    Args:
        measure: Whether to time the operations, which takes a few seconds.

    Returns:
        A result whose subjects are the names of ``kp.formats.FORMATS``; ``kp.render`` formats it as a table.

    Example:
        >>> hardware().value("accelerated", "float32")
        1
    """
    adapter = adapter_for_file()
    compute = adapter.compute
    environment = compute.environment()
    rows = [
        Measurement(name, "accelerated", _accelerated(number, compute, environment)) for name, number in FORMATS.items()
    ]
    notes = tuple(_reasons(compute, environment))
    sources = {"accelerated": "flags of the processor, or the compute capability of the GPU"}
    if measure:
        for metric, operation in _OPERATIONS.items():
            rows += [Measurement(name, metric, time) for name, time in _median_times(adapter, operation).items()]
            sources[metric] = (
                f"median of up to {_ROUNDS} calls through keras.ops, formats interleaved, {_WARMUP} warm-up calls"
            )
    return Result(environment.device, tuple(rows), environment.with_sources(sources), notes=notes)


def _accelerated(number: Format, compute: Compute, environment: Environment) -> bool:
    if number.name == "float32":
        return True
    if compute.is_tpu:
        return number.tpu
    if compute.device:
        capability = compute.compute_capability
        return bool(capability and number.compute_capability and capability >= number.compute_capability)
    return bool(set(number.cpu_flags) & set(environment.cpu_flags))


def _reasons(compute: Compute, environment: Environment) -> Iterator[str]:
    """Describe the device, or the processor and its flags."""
    if compute.device:
        capability = compute.compute_capability
        yield f"{compute.device}: compute capability {'unknown' if capability is None else '{}.{}'.format(*capability)}."
        if capability == (7, 5):
            yield "The GTX 16 series has compute capability 7.5, too, but no tensor cores: measure=True shows what this device does."
        return
    flags = ", ".join(environment.cpu_flags) or "no flags of accelerated formats"
    yield f"{environment.processor}: {flags}."


def _matmul(ops: Any, size: Mapping[str, int]) -> tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...]]:
    return ops.matmul, (size["matmul"], size["matmul"]), (size["matmul"], size["matmul"])


def _convolution(ops: Any, size: Mapping[str, int]) -> tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...]]:
    channels, image = size["channels"], size["image"]
    inputs = (size["batch"], image, image, channels)
    return lambda x, kernel: ops.conv(x, kernel, padding="same"), inputs, (3, 3, channels, channels)


def _depthwise(ops: Any, size: Mapping[str, int]) -> tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...]]:
    channels, image = size["channels"], size["image"]
    inputs = (size["batch"], image, image, channels)
    return lambda x, kernel: ops.depthwise_conv(x, kernel, padding="same"), inputs, (3, 3, channels, 1)


_OPERATIONS: MappingProxyType[str, Callable[..., Any]] = MappingProxyType(
    {"matmul_ms": _matmul, "convolution_ms": _convolution, "depthwise_ms": _depthwise}
)


def _median_times(adapter: KerasAdapter, operation: Callable[..., Any]) -> dict[str, float]:
    """Return the median time of one operation in ms by format, measured in interleaved rounds."""
    compute, ops, random = adapter.compute, adapter.keras.ops, np.random.default_rng(0)
    function, *shapes = operation(ops, _LARGE if compute.device else _SMALL)
    arrays = [random.normal(size=shape).astype(np.float32) for shape in shapes]
    names = [name for name in _MEASURED if name != "tf32" or compute.tf32 is not None]
    calls = {name: _call(adapter, function, arrays, name) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(_ROUNDS):
        for name, call in calls.items():
            if round_number and times[name][0] > _SLOWEST_MS:
                continue  # An emulated format: one call is enough to show it.
            warmup = 0 if round_number else _WARMUP
            with _rounding(compute, name == "tf32"):
                times[name] += time_calls(lambda _: call(), warmup=warmup, min_calls=1, min_seconds=0).tolist()  # noqa: B023
    return {name: spread(values).median for name, values in times.items()}


def _call(adapter: KerasAdapter, function: Callable[..., Any], arrays: list[Any], name: str) -> Callable[[], None]:
    """Return a function that runs the operation in a format and waits until the device has completed it."""
    ops, compute = adapter.keras.ops, adapter.compute
    dtype = "float32" if name == "tf32" else name
    tensors = [ops.cast(ops.convert_to_tensor(array), dtype) for array in arrays]
    compiled = compute.compiled(lambda *inputs: function(*inputs))  # One per format: TF32 is fixed when it is traced.

    def call() -> None:
        compute.wait(compiled(*tensors))

    return call


@contextmanager
def _rounding(compute: Compute, allowed: bool) -> Iterator[None]:
    restore = compute.allow_tf32(allowed)
    try:
        yield
    finally:
        restore()
