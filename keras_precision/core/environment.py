"""Environment: the machine and software on which a figure was measured."""

import dataclasses
import functools
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from keras_precision.core.formats.processor_flags import RECORDED_FLAGS
from keras_precision.core.system.json_documents import Fields

__all__ = ["Environment", "usable_cores"]

_PACKAGES = (
    "keras-precision",
    "keras",
    "tf-keras",
    "tensorflow",
    "jax",
    "torch",
    "numpy",
    "ai-edge-litert",
    "tflite-runtime",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "coremltools",
    "tflite-micro",
    "ethos-u-vela",
)


@dataclass(frozen=True)
class Environment:
    """The machine and software on which figures were measured.

    Attributes:
        python: Version of Python.
        system: Operating system and architecture.
        processor: Name of the processor.
        cores: Processor cores that this process may use.
        cpu_flags: Flags of the processor that matter for number formats.
        versions: Package to version.
        backend: The backend or runtime: ``"tensorflow"``, ``"jax"``, ``"torch"``, ``"litert"``, ...
        device: The device it runs on.
        tf32: Whether FP32 products may be rounded to TF32; None if unknown.
        sources: Metric to how its figure was obtained.

    Example:
        >>> Environment.here(backend="tensorflow").backend
        'tensorflow'
    """

    python: str = ""
    system: str = ""
    processor: str = ""
    cores: int = 0
    cpu_flags: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    backend: str = ""
    device: str = ""
    tf32: bool | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the mappings immutable."""
        object.__setattr__(self, "versions", MappingProxyType(dict(self.versions)))
        object.__setattr__(self, "sources", MappingProxyType(dict(self.sources)))

    def __hash__(self) -> int:
        """Hash what equality compares."""
        return hash(
            (
                self.machine,
                self.backend,
                self.device,
                self.tf32,
                frozenset(self.versions.items()),
                frozenset(self.sources.items()),
            )
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy through plain dictionaries (a mapping proxy can do neither)."""
        return _rebuild, (self.to_json(),)

    @classmethod
    def here(
        cls, *, backend: str = "", device: str = "", tf32: bool | None = None, sources: Mapping[str, str] | None = None
    ) -> Self:
        """Describe this machine and the packages installed on it.

        Args:
            backend: The backend or runtime.
            device: The device it runs on; empty for the processor.
            tf32: Whether FP32 products may be rounded to TF32.
            sources: Metric to how its figure was obtained.

        Returns:
            The environment.
        """
        processor, flags = _processor()
        return cls(
            python=platform.python_version(),
            system=f"{platform.system()} {platform.machine()}",
            processor=processor,
            cores=usable_cores(),
            cpu_flags=flags,
            versions=_versions(),
            backend=backend,
            device=device or processor,
            tf32=tf32,
            sources=sources or {},
        )

    @property
    def machine(self) -> tuple[str, str, int, str]:
        """System, processor, cores and device: these must be equal for two times to be comparable."""
        return self.system, self.processor, self.cores, self.device

    def with_sources(self, sources: Mapping[str, str]) -> Self:
        """Return a copy that also records how these figures were obtained.

        Args:
            sources: Metric to how its figure was obtained.

        Returns:
            The new environment.
        """
        return replace(self, sources={**self.sources, **sources})

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values.

        Returns:
            Name to value.
        """
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return values | {
            "cpu_flags": list(self.cpu_flags),
            "versions": dict(self.versions),
            "sources": dict(self.sources),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        """Return the environment whose ``to_json`` wrote these fields.

        Args:
            fields: The fields of the JSON object.

        Returns:
            The environment.

        Raises:
            FileFormatError: A field is missing, unknown or of another type.
        """
        fields.refuse_others(*(entry.name for entry in dataclasses.fields(cls)))
        return cls(
            python=fields.get("python", str),
            system=fields.get("system", str),
            processor=fields.get("processor", str),
            cores=fields.get("cores", int),
            cpu_flags=fields.text_list("cpu_flags"),
            versions=fields.texts("versions"),
            backend=fields.get("backend", str),
            device=fields.get("device", str),
            tf32=fields.get("tf32", (bool, type(None))),
            sources=fields.texts("sources"),
        )


def _rebuild(values: dict[str, Any]) -> Environment:
    return Environment.from_json(Fields(values, "environment"))


def usable_cores() -> int:
    """Return how many processor cores this process may use, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@functools.cache
def _processor() -> tuple[str, tuple[str, ...]]:
    # /proc/cpuinfo takes 0.2 ms; py-cpuinfo starts processes and takes a second.
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), ()
    fields = dict(line.split(":", 1) for line in text.split("\n\n", 1)[0].splitlines() if ":" in line)
    values = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(values.get("flags", values.get("Features", "")).split())
    return values.get("model name", platform.machine()), tuple(sorted(flags & RECORDED_FLAGS))


@functools.cache
def _versions() -> Mapping[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return MappingProxyType(versions)
