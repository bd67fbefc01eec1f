"""MemorySource: where a figure of peak memory comes from."""

import re
from abc import ABC, abstractmethod
from pathlib import Path

import psutil

__all__ = ["MemorySource", "ResidentSet"]

_MEGABYTE = 1e6


class MemorySource(ABC):
    """Measures peak memory from ``start`` on.

    Attributes:
        name: What is measured, in words: figures of two sources are never compared.
        counts_all_tensors: Whether the figure is of all tensors, and of nothing else.
    """

    name: str
    counts_all_tensors = False

    @abstractmethod
    def start(self) -> None:
        """Forget earlier peaks, where the source can."""

    @abstractmethod
    def peak_mb(self) -> float | None:
        """Return the peak since ``start`` in megabytes of 10^6 bytes; None if it cannot be told."""


class ResidentSet(MemorySource):
    """Growth of the process's resident set: for frameworks whose allocator keeps no figures."""

    _CAVEAT = "it depends on what the process freed before: compare runs in fresh processes alone"

    def __init__(self) -> None:
        self.name = f"growth of the process's resident set; {self._CAVEAT}"
        self._before = 0.0
        self._has_peak = True

    def start(self) -> None:
        """Reset the peak where Linux allows it, and note where the resident set stands."""
        try:
            # "5" resets VmHWM (proc(5)). ru_maxrss would be no help: it is inherited over exec.
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            self._has_peak = False
            self.name = f"growth of the process's resident set at epoch ends (no peak can be had here); {self._CAVEAT}"
        self._before = float(psutil.Process().memory_info().rss)

    def peak_mb(self) -> float:
        """Return how far the peak lies above where ``start`` found the resident set."""
        return max(0.0, self._peak() - self._before) / _MEGABYTE

    def _peak(self) -> float:
        if self._has_peak:
            status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
            found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
            if found:
                return float(found[1]) * 1024
        return float(psutil.Process().memory_info().rss)
