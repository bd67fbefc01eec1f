"""MemoryProbe: peak memory of a fit."""

from collections.abc import Mapping

from keras_precision._adapters.memory import MemorySource
from keras_precision.callbacks.probe import Fit, Probe
from keras_precision.result import Value

__all__ = ["MemoryProbe"]


class MemoryProbe(Probe):
    """Reads peak memory from the best source that the backend has, and names the source.

    The source is the allocator of the framework, where it keeps figures, else the resident set of
    the process. It is read once an epoch, and counts validation, too.

    Example:
        >>> MemoryProbe().values()
        {'peak_memory_mb': None}
    """

    name = "memory"

    def __init__(self) -> None:
        self._source: MemorySource | None = None
        self._peak: float | None = None

    def begin(self, fit: Fit) -> None:
        """Find the source, and reset its peak where it can be reset."""
        self._source, self._peak = fit.adapter.compute.memory(), None
        self._source.start()

    def epoch_end(self, epoch: int) -> None:
        """Read the peak."""
        self._read()

    def end(self) -> None:
        """Let go of the source."""
        self._source = None

    def values(self) -> Mapping[str, Value]:
        """Return the peak so far; at the end of the fit, its last validation is in it, too."""
        self._read()
        return {"peak_memory_mb": self._peak}

    def sources(self) -> Mapping[str, str]:
        """Return the name of the source."""
        return {"peak_memory_mb": self._source.name} if self._source else {}

    def _read(self) -> None:
        peak = self._source.peak_mb() if self._source else None
        if peak is not None:
            self._peak = max(peak, self._peak or 0.0)
