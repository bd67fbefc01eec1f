"""Child: a process that reads files in place of this one, since a damaged file can end the process."""

import atexit
import functools
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_precision.core.system.child_process import ChildProcess, exit_reason, reply_stream

__all__ = ["Child", "ChildError", "ChildTimeout", "FileChild", "serve"]

_EXIT_S = 10.0
"""Seconds in which a process that has closed its output must end by itself; it is killed after that."""


class ChildError(Exception):
    """The child refused a request, crashed, or did not reply in time."""


class ChildTimeout(ChildError):  # noqa: N818 - it names what happened
    """The child did not reply in time, and was ended."""


class Child:
    """A Python process that replies to one request after the other; its program ends in a call of ``serve``.

    It starts with the first request, starts again after a crash, and ends with this process. Starting an interpreter
    takes a second; a request takes milliseconds.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._process: ChildProcess | None = None
        self._replies = 0
        self._failure = ""
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ask(self, request: str, timeout_s: float) -> Any:
        """Return what the program's function returns for a line of text, by way of JSON.

        Raises:
            ChildTimeout: There was no reply in time.
            ChildError: It refused the request or crashed.
        """
        with self._lock:
            used = self._replies > 0
            reply = self._ask(request, timeout_s)
            if reply is None and used:  # an earlier request may have corrupted its memory
                reply = self._ask(request, timeout_s)
        if reply is None:
            raise ChildError(self._failure)
        if "error" in reply:
            raise ChildError(reply["error"])
        return reply["value"]

    def _ask(self, request: str, timeout_s: float) -> dict[str, Any] | None:
        """The child's reply; None if it crashed."""
        process = self._running()
        process.send(json.dumps(request).encode() + b"\n")
        in_time = process.wait_for_reply(timeout_s)
        line = process.replies.readline() if in_time else b""
        if line:
            self._replies += 1
            reply: dict[str, Any] = json.loads(line)
            return reply
        if in_time:
            self._failure = f"it ended the process with {exit_reason(process.exit_code(_EXIT_S))}"
        self.close()
        if not in_time:
            raise ChildTimeout(f"no answer within {timeout_s:g} s")
        return None

    def close(self) -> None:
        """End the child, if it runs."""
        process, self._process = self._process, None
        self._replies = 0
        if process is not None:
            process.close()

    def _running(self) -> ChildProcess:
        if self._process is None or not self._process.is_running:
            self.close()
            self._process = ChildProcess(self._program)
        return self._process


class FileChild(Child):
    """A child whose requests are paths of files: what it has said of a file is known until the file changes."""

    def __init__(self, program: str) -> None:
        super().__init__(program)
        self._reading = functools.lru_cache(maxsize=32)(lambda *_: _Reading())

    def read(self, path: Path, limit_s: float) -> Any:
        """Return what the program's function returns for a file; one that has reached the limit is refused at once.

        Raises as ``ask`` does.
        """
        stamp, file = path.stat(), path.resolve()
        reading = self._reading(file, stamp.st_mtime_ns, stamp.st_size)
        if not reading.is_known:
            if limit_s <= reading.reached_s:
                raise ChildTimeout(f"no answer within {reading.reached_s:g} s")
            try:
                reading.value, reading.is_known = self.ask(str(file), limit_s), True
            except ChildTimeout:
                reading.reached_s = limit_s
                raise
        return reading.value


@dataclass
class _Reading:
    """What is known of a file as it is now: the child's answer, or the longest limit in seconds that it has reached."""

    value: Any = None
    is_known: bool = False
    reached_s: float = 0.0


def serve(function: Callable[[str], Any]) -> None:
    """Reply to requests with what ``function`` returns or raises, as JSON, until there are no more; called in the child."""
    with reply_stream() as out:
        for line in sys.stdin.buffer:
            try:
                reply: dict[str, Any] = {"value": function(json.loads(line))}
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller raises it
                reply = {"error": f"{type(error).__name__}: {error}"}
            out.write(json.dumps(reply).encode() + b"\n")
            out.flush()
