"""MemoryProbe: peak memory of a fit."""

from collections.abc import Mapping

from keras_precision._adapters.training.peak_memory import MemorySource
from keras_precision.callbacks.probes.probe import FitState, Probe
from keras_precision.core.result import Value

__all__ = ["MemoryProbe"]


class MemoryProbe(Probe):
    """Reads peak memory from the best source that the backend has, and names the source.

    The source is the allocator of the framework, where it has statistics, else the resident set of
    the process. It is read once an epoch, and includes validation. The bytes that training needs are
    reported with it: lower precision saves activations, while weights, gradients and the
    optimizer's slots stay in float32.

    Example:
        >>> MemoryProbe().values()
        {'peak_memory_mb': None}
    """

    name = "memory"

    def __init__(self) -> None:
        self._fit: FitState | None = None
        self._source: MemorySource | None = None
        self._bytes_by_kind: dict[str, int] = {}
        self._peak: float | None = None

    def begin(self, fit: FitState) -> None:
        """Select the source, and reset its peak where it can be reset."""
        self._fit, self._bytes_by_kind, self._peak = fit, {}, None
        self._source = fit.adapter.compute.memory()
        self._source.start()

    def epoch_end(self, epoch: int) -> None:
        """Read the peak, and after the first epoch, when all variables are built, the bytes by kind."""
        self._read()
        if self._fit is not None and not self._bytes_by_kind:
            self._bytes_by_kind = self._fit.adapter.bytes_by_kind(self._fit.model, self._fit.optimizer)

    def end(self) -> None:
        """Release the model and the source."""
        self._fit = self._source = None

    def values(self) -> Mapping[str, Value]:
        """Return the peak so far and its parts, in 10^6 bytes; after the fit, the last validation is included."""
        self._read()
        parts: dict[str, Value] = {f"{kind}_mb": size / 1e6 for kind, size in self._bytes_by_kind.items()}
        if parts and self._source is not None:
            known = self._peak is not None and self._source.counts_all_tensors
            parts["activations_mb"] = (self._peak or 0.0) - sum(self._bytes_by_kind.values()) / 1e6 if known else None
        return {"peak_memory_mb": self._peak, **parts}

    def sources(self) -> Mapping[str, str]:
        """Return the name of the source."""
        return {"peak_memory_mb": self._source.name} if self._source else {}

    def _read(self) -> None:
        peak = self._source.peak_mb() if self._source else None
        if peak is not None:
            self._peak = max(peak, self._peak or 0.0)
