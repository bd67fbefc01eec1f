"""MemorySource: how peak memory is measured."""

import re
from abc import ABC, abstractmethod
from pathlib import Path

import psutil

__all__ = ["MemorySource", "ResidentSet"]

_MEGABYTE = 1e6


class MemorySource(ABC):
    """Measures peak memory from ``start`` on.

    Attributes:
        name: What is measured, in words: values of two sources are not comparable.
        counts_all_tensors: Whether the value counts all tensors, and nothing else.
    """

    name: str
    counts_all_tensors = False

    @abstractmethod
    def start(self) -> None:
        """Reset the peak, where the source can."""

    @abstractmethod
    def peak_mb(self) -> float | None:
        """Return the peak since ``start`` in megabytes of 10^6 bytes; None if unknown."""


class ResidentSet(MemorySource):
    """Growth of the process's resident set, for frameworks whose allocator has no statistics."""

    _CAVEAT = "it depends on what the process freed before: compare runs in fresh processes alone"

    def __init__(self) -> None:
        self.name = f"growth of the process's resident set; {self._CAVEAT}"
        self._before = 0.0
        self._has_peak = True

    def start(self) -> None:
        """Reset the peak where Linux allows it, and note the current resident set."""
        try:
            # "5" resets VmHWM, see proc(5). ru_maxrss is inherited over exec, and would be the peak of the parent.
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            self._has_peak = False
            self.name = f"growth of the process's resident set at epoch ends (no peak can be had here); {self._CAVEAT}"
        self._before = float(psutil.Process().memory_info().rss)

    def peak_mb(self) -> float:
        """Return the peak minus the resident set at ``start``."""
        return max(0.0, self._peak() - self._before) / _MEGABYTE

    def _peak(self) -> float:
        if self._has_peak:
            status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
            peak = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
            if peak:
                return float(peak[1]) * 1024
        return float(psutil.Process().memory_info().rss)
