"""Journal: rows written to a file as they are measured, so that a killed run leaves a result."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from keras_precision.callbacks.probes.probe import Probe
from keras_precision.core.result import Measurement, Result

__all__ = ["Journal"]

_BUFFERED_ROWS, _BUFFERED_SECONDS = 64, 1.0


class Journal:
    """Appends rows to a new file that ``Result.load`` reads, however the process ends.

    At most 64 rows, or those of one second, are buffered. Rows passed to the operating system survive the end of the
    process, but not a crash of the machine: nothing is synced to disk until the result is saved.

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
        self._buffer: list[str] = []
        self._rows_read: dict[int, int] = {}  # number of rows read so far, by the id of the probe
        self._last_flush = time.monotonic()
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        os.write(self._file, result.log_header().encode())

    @property
    def due(self) -> bool:
        """Whether the last flush is at least one second ago."""
        return time.monotonic() - self._last_flush >= _BUFFERED_SECONDS

    def add(self, rows: Iterable[Measurement]) -> None:
        """Buffer rows, and write the buffer when it is full or due."""
        self._buffer += [row.log_line() for row in rows]
        if len(self._buffer) >= _BUFFERED_ROWS or self.due:
            self.flush()

    def add_from(self, probe: Probe) -> None:
        """Add the rows that a probe has produced since the last call."""
        start = self._rows_read.get(id(probe), 0)
        rows = list(probe.rows(start))
        self._rows_read[id(probe)] = start + len(rows)
        self.add(rows)

    def flush(self) -> None:
        """Write the buffer in one call, so that no other writer can split a line."""
        if self._buffer:
            os.write(self._file, "".join(self._buffer).encode())
            self._buffer.clear()
        self._last_flush = time.monotonic()

    def close(self) -> None:
        """Write the buffer and close the file."""
        if self._file >= 0:
            self.flush()
            os.close(self._file)
            self._file = -1
