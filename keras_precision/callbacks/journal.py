"""Journal: rows written while they are measured, so that a killed run leaves a result."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from keras_precision.callbacks.probes.probe import Probe
from keras_precision.core.result import Measurement, Result

__all__ = ["Journal"]

_ROWS, _SECONDS = 64, 1.0


class Journal:
    """Appends rows to a file that ``Result.load`` reads, however the process ends.

    At most 64 rows, or those of one second, are held back. What was handed to the operating system
    survives the end of the process (not that of the machine: nothing is forced to the disk until
    the result is saved).

    Args:
        path: The file; it is begun anew.
        result: Name, environment and plan of the run.

    Raises:
        OSError: The file cannot be written.

    Example:
        >>> journal = Journal("run.json", Result("run"))
        >>> journal.add([Measurement("step", "step_time_ms", 1.5, step=1)])
        >>> journal.close()
        >>> Result.load("run.json").series("step_time_ms")
        ([1], [1.5])
    """

    def __init__(self, path: str | os.PathLike[str], result: Result) -> None:
        self.path = Path(path)
        self._held: list[str] = []
        self._followed: dict[int, int] = {}  # rows taken from each probe
        self._wrote = time.monotonic()
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        os.write(self._file, result.log_header().encode())

    @property
    def due(self) -> bool:
        """Whether rows have waited long enough to be asked for."""
        return time.monotonic() - self._wrote >= _SECONDS

    def add(self, rows: Iterable[Measurement]) -> None:
        """Add rows; they are written when enough have come, or the last writing was long ago.

        Args:
            rows: The rows.
        """
        self._held += [row.log_line() for row in rows]
        if len(self._held) >= _ROWS or self.due:
            self.flush()

    def follow(self, probe: Probe) -> None:
        """Add the rows that a probe made since it was followed last.

        Args:
            probe: The probe.
        """
        taken = self._followed.get(id(probe), 0)
        rows = list(probe.rows(taken))
        self._followed[id(probe)] = taken + len(rows)
        self.add(rows)

    def flush(self) -> None:
        """Write what is held back, in one call: a line is never torn by another writer."""
        if self._held:
            os.write(self._file, "".join(self._held).encode())
            self._held.clear()
        self._wrote = time.monotonic()

    def close(self) -> None:
        """Write the rest, and let go of the file."""
        if self._file >= 0:
            self.flush()
            os.close(self._file)
            self._file = -1
