"""Journal: rows written to a file as they are measured, so that a killed run leaves a result."""

import os
import time
from collections.abc import Iterable

from keras_precision.callbacks.probes.probe import Probe
from keras_precision.core.result import Measurement, Result, log_path
from keras_precision.core.system.files import check_destination

__all__ = ["Journal"]

_BUFFERED_ROWS, _BUFFERED_SECONDS = 64, 1.0


class Journal:
    """Appends rows to ``PATH.partial``, which ``Result.load(PATH)`` reads while no finished result is there.

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
        self.path = log_path(path)
        self._buffer: list[str] = []
        self._rows_read: dict[int, int] = {}  # number of rows read so far, by the id of the probe
        self._last_flush = time.monotonic()
        self._torn = False  # whether the last line of the file lacks its end
        self._file = os.open(check_destination(self.path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        self._write(result.log_header())

    @property
    def due(self) -> bool:
        """Whether the last flush is at least one second ago."""
        return time.monotonic() - self._last_flush >= _BUFFERED_SECONDS

    def add(self, rows: Iterable[Measurement]) -> None:
        """Buffer rows, and write the buffer when it is full or due."""
        self._buffer += [row.log_line() for row in rows]
        if len(self._buffer) >= _BUFFERED_ROWS or self.due:
            self.flush()

    def buffer_from(self, probe: Probe) -> None:
        """Buffer the rows that a probe has produced since the last call."""
        start = self._rows_read.get(id(probe), 0)
        rows = list(probe.rows(start))
        self._rows_read[id(probe)] = start + len(rows)
        self._buffer += [row.log_line() for row in rows]

    def flush(self) -> None:
        """Write the buffer; rows that could not be written are lost, and those of the next call are not."""
        lines = "".join(self._buffer)
        self._buffer.clear()
        self._last_flush = time.monotonic()
        if lines:
            self._write(lines)

    def close(self) -> None:
        """Write the buffer and close the file."""
        if self._file >= 0:
            try:
                self.flush()
            finally:
                os.close(self._file)
                self._file = -1

    def _write(self, text: str) -> None:
        """Write all of a text, in one call where the system takes it, so that no other writer can split a line."""
        data = (b"\n" if self._torn else b"") + text.encode()
        self._torn = True
        while data:
            data = data[os.write(self._file, data) :]
        self._torn = False
