"""Compute: what measurements need from TensorFlow, JAX and PyTorch."""

import os
import platform
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from keras_precision._adapters.training.peak_memory import MemorySource, ResidentSet
from keras_precision.core.environment import Environment
from keras_precision.core.system.optional import require

__all__ = ["Compute", "get_compute"]

_MANY = 1_000_000  # more than the traces of one function
_MEGABYTE = 1e6


class Compute(ABC):
    """A backend of Keras; ``name`` is Keras's name of it."""

    name: str

    @property
    @abstractmethod
    def device(self) -> str:
        """The name of the accelerator; empty for the processor."""

    @property
    @abstractmethod
    def tf32(self) -> bool | None:
        """Whether FP32 products may be rounded to TF32; None where the device has no TF32."""

    @abstractmethod
    def allow_tf32(self, allowed: bool) -> Callable[[], None]:
        """Allow or forbid TF32 in matrix products and convolutions; return a function that restores the setting."""

    def without_onednn(self) -> None:  # noqa: B027 - other backends read environment variables
        """Turn oneDNN kernels off, where that is possible in a running process."""

    @property
    @abstractmethod
    def compute_capability(self) -> tuple[int, int] | None:
        """The compute capability of the NVIDIA GPU; None without one."""

    @property
    def is_tpu(self) -> bool:
        """Whether it computes on a TPU."""
        return False

    @abstractmethod
    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of tensors, compiled where the backend compiles."""

    @abstractmethod
    def memory(self) -> MemorySource:
        """Return the best source of memory measurements on this machine."""

    @abstractmethod
    def wait(self, outputs: Any) -> None:
        """Wait until the device has computed ``outputs``, tensors in any structure."""

    @abstractmethod
    def compilations(self, model: Any) -> int:
        """Return a number that changes when a training step is traced or compiled."""

    def environment(self) -> Environment:
        """Describe this machine with this framework on it."""
        return Environment.here(backend=self.name, device=self.device, tf32=self.tf32)


class TensorFlowCompute(Compute):
    """TensorFlow."""

    name = "tensorflow"

    def __init__(self) -> None:
        self._tf: Any = require("tensorflow", extra="tensorflow")
        # Weak references: train functions refer to their model, and this object lives as long as the process.
        self._function: Callable[[], Any] = lambda: None
        self._compiled: Callable[[], Any] = lambda: None
        self._functions = 0

    @property
    def device(self) -> str:
        gpus = self._tf.config.get_visible_devices("GPU")
        return self._tf.config.experimental.get_device_details(gpus[0]).get("device_name", gpus[0].name) if gpus else ""

    @property
    def tf32(self) -> bool | None:
        return self._tf.config.experimental.tensor_float_32_execution_enabled() if self.device else None

    def allow_tf32(self, allowed: bool) -> Callable[[], None]:
        config = self._tf.config.experimental
        before = config.tensor_float_32_execution_enabled()
        config.enable_tensor_float_32_execution(allowed)
        return lambda: config.enable_tensor_float_32_execution(before)

    @property
    def compute_capability(self) -> tuple[int, int] | None:
        gpus = self._tf.config.get_visible_devices("GPU")
        return self._tf.config.experimental.get_device_details(gpus[0]).get("compute_capability") if gpus else None

    @property
    def is_tpu(self) -> bool:
        return bool(self._tf.config.get_visible_devices("TPU"))

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self._tf.function(function, autograph=False)  # type: ignore[no-any-return]

    def memory(self) -> MemorySource:
        device = "GPU:0" if self.device else "CPU:0"
        try:
            # Without oneDNN, the CPU allocator has no statistics and raises; before the first
            # allocation it would return 0.
            self._tf.zeros(1)
            self._tf.config.experimental.get_memory_info(device)
        except ValueError:
            return ResidentSet()
        return _TensorFlowAllocator(self._tf.config.experimental, device)

    def wait(self, outputs: Any) -> None:
        for tensor in self._tf.nest.flatten(outputs):
            if self._tf.is_tensor(tensor):
                tensor.numpy()

    def compilations(self, model: Any) -> int:
        function = getattr(model, "train_function", None)
        if function is None:
            return 0
        if self._function() is not function:
            self._function, self._functions = weakref.ref(function), self._functions + 1
            self._compiled = weakref.ref(_find_compiled(function) or function)
        count = getattr(self._compiled(), "experimental_get_tracing_count", None)  # absent where it runs eagerly
        return self._functions * _MANY + (0 if count is None else int(count()))


def _find_compiled(function: Any) -> Any:
    """Return the compiled function inside a train function; None when it runs eagerly."""
    # In Keras 3, train_function is a Python function with the tf.function in its closure, and TensorFlow has no other
    # count of traces: https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/tensorflow/trainer.py.
    # A TrainFunctionWrapper may be around it.
    if hasattr(function, "experimental_get_tracing_count"):
        return function
    parts = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    parts = [part for part in (*parts, getattr(function, "inner", None)) if callable(part)]
    inner = (_find_compiled(part) for part in parts if not hasattr(part, "layers"))  # the closure has the model, too
    return next((compiled for compiled in inner if compiled is not None), None)


class _TensorFlowAllocator(MemorySource):
    def __init__(self, experimental: Any, device: str) -> None:
        self._experimental, self._device = experimental, device
        self.counts_all_tensors = not device.startswith("CPU")
        # Measured with TensorFlow 2.21: the oneDNN allocator of the processor counts only large tensors.
        what = "of 256 KiB and more alive (smaller ones it does not count)" if device.startswith("CPU") else "alive"
        self.name = f"TensorFlow's allocator on {device}: peak of all tensors {what}"

    def start(self) -> None:
        self._experimental.reset_memory_stats(self._device)

    def peak_mb(self) -> float | None:
        # 0 means that no tensor was large enough to be counted: unknown, not zero.
        return float(self._experimental.get_memory_info(self._device)["peak"]) / _MEGABYTE or None


class JaxCompute(Compute):
    """JAX."""

    name = "jax"

    def __init__(self) -> None:
        self._jax: Any = require("jax", extra="jax")
        self._compilations = 0
        self._jax.monitoring.register_event_duration_secs_listener(self._on_event)

    @property
    def device(self) -> str:
        device = self._jax.devices()[0]
        return "" if device.platform == "cpu" else str(device.device_kind)

    @property
    def tf32(self) -> bool | None:
        if not self.device:
            return None
        return self._jax.config.jax_default_matmul_precision not in ("float32", "highest")

    def allow_tf32(self, allowed: bool) -> Callable[[], None]:
        before = self._jax.config.jax_default_matmul_precision
        self._jax.config.update("jax_default_matmul_precision", "tensorfloat32" if allowed else "highest")
        return lambda: self._jax.config.update("jax_default_matmul_precision", before)

    @property
    def compute_capability(self) -> tuple[int, int] | None:
        capability = getattr(self._jax.devices()[0], "compute_capability", None)  # "9.0"; only on NVIDIA GPUs
        major, _, minor = str(capability or "").partition(".")
        return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None

    @property
    def is_tpu(self) -> bool:
        return bool(self._jax.devices()[0].platform == "tpu")

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self._jax.jit(function)  # type: ignore[no-any-return]

    def memory(self) -> MemorySource:
        device = self._jax.devices()[0]
        return _JaxAllocator(device) if device.memory_stats() else ResidentSet()  # None on the processor

    def wait(self, outputs: Any) -> None:
        self._jax.block_until_ready(outputs)

    def compilations(self, model: Any) -> int:
        return self._compilations

    def _on_event(self, event: str, duration: float, **details: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self._compilations += 1


class _JaxAllocator(MemorySource):
    def __init__(self, device: Any) -> None:
        self._device = device
        self.name = "JAX's allocator: peak bytes in use since the process began (it cannot be reset)"

    def start(self) -> None:
        """Do nothing: JAX has no reset."""

    def peak_mb(self) -> float:
        return float(self._device.memory_stats()["peak_bytes_in_use"]) / _MEGABYTE


class TorchCompute(Compute):
    """PyTorch."""

    name = "torch"

    def __init__(self) -> None:
        self._torch: Any = require("torch", extra="torch")

    @property
    def device(self) -> str:
        if os.environ.get("KERAS_TORCH_DEVICE") == "cpu":  # Keras's own switch
            return ""
        if self._torch.cuda.is_available():
            return str(self._torch.cuda.get_device_name())
        mps = getattr(self._torch.backends, "mps", None)
        return f"Apple GPU ({platform.machine()})" if mps is not None and mps.is_available() else ""

    @property
    def tf32(self) -> bool | None:
        if not self._torch.cuda.is_available():
            return None
        # One switch is for matrix products, the other one for convolutions.
        return _allows_tf32(self._torch.backends.cuda.matmul) or _allows_tf32(self._torch.backends.cudnn)

    def allow_tf32(self, allowed: bool) -> Callable[[], None]:
        # Since PyTorch 2.9 there is a switch per kind of operation; once it is set, reading the older ones may raise:
        # https://github.com/pytorch/pytorch/blob/v2.13.0/torch/backends/cuda/__init__.py
        backends, switch, value = self._torch.backends, "fp32_precision", "tf32" if allowed else "ieee"
        holders = [backends.cuda.matmul, getattr(backends.cudnn, "conv", None), getattr(backends.cudnn, "rnn", None)]
        if not all(hasattr(holder, switch) for holder in holders):
            holders, switch, value = [backends.cuda.matmul, backends.cudnn], "allow_tf32", allowed  # type: ignore[assignment]
        before = [getattr(holder, switch) for holder in holders]
        _set_switches(holders, switch, [value] * len(holders))
        return lambda: _set_switches(holders, switch, before)

    def without_onednn(self) -> None:
        self._torch.backends.mkldnn.set_flags(False)

    @property
    def compute_capability(self) -> tuple[int, int] | None:
        on_cuda = self.device and self._torch.cuda.is_available() and self._torch.version.cuda
        return tuple(self._torch.cuda.get_device_capability()) if on_cuda else None

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self._torch.no_grad()(function)  # type: ignore[no-any-return]

    def memory(self) -> MemorySource:
        on_cuda = self.device and self._torch.cuda.is_available()
        return _TorchAllocator(self._torch.cuda) if on_cuda else ResidentSet()

    def wait(self, outputs: Any) -> None:
        if self.device and self._torch.cuda.is_available():
            self._torch.cuda.synchronize()

    def compilations(self, model: Any) -> int:
        """Return 0: Keras runs PyTorch eagerly by default."""
        return 0


def _set_switches(holders: list[Any], switch: str, values: list[Any]) -> None:
    for holder, value in zip(holders, values, strict=True):
        setattr(holder, switch, value)


def _allows_tf32(backend: Any) -> bool:
    """Tell whether a backend of PyTorch may use TF32."""
    precision = getattr(backend, "fp32_precision", "none")  # since PyTorch 2.9; once set, the older switch raises
    return precision == "tf32" if precision in ("tf32", "ieee") else bool(backend.allow_tf32)


class _TorchAllocator(MemorySource):
    counts_all_tensors = True
    name = "PyTorch's CUDA allocator: peak of all tensors alive"

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda

    def start(self) -> None:
        self._cuda.reset_peak_memory_stats()

    def peak_mb(self) -> float:
        return float(self._cuda.max_memory_allocated()) / _MEGABYTE


_BY_NAME: dict[str, type[Compute]] = {"tensorflow": TensorFlowCompute, "jax": JaxCompute, "torch": TorchCompute}


def get_compute(name: str) -> Compute:
    """Return a backend by the name that Keras uses."""
    if name not in _BY_NAME:
        raise NotImplementedError(
            f"Expected one of the Keras backends {', '.join(_BY_NAME)}. Received: '{name}', which cannot train."
        )
    return _BY_NAME[name]()
