"""A child process that survives where it can: damaged files end it, and not the caller."""

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

from keras_precision.core.system.child_process import child_environment, python_command

__all__ = ["Child", "ChildError", "serve"]


_LAST_WORDS_S = 10.0


class ChildError(Exception):
    """The child refused a request, died of it, or did not answer in time."""


class Child:
    """A Python process that answers one request after the other.

    It is started with the first request, started again after a request that it died of, and ends
    with this process. Starting an interpreter takes a second; a request takes milliseconds.
    """

    def __init__(self, program: str, timeout_s: float) -> None:
        self._program, self._timeout_s = program, timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = self._answered = 0
        self._last_words = ""
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ask(self, request: str) -> Any:
        """Return the child's answer."""
        with self._lock:
            used = self._answered > 0
            answer = self._asked(request)
            if answer is None and used:  # it may have died of what an earlier request left behind
                answer = self._asked(request)
        if answer is None:
            raise ChildError(self._last_words)
        if "error" in answer:
            raise ChildError(answer["error"])
        return answer["value"]

    def _asked(self, request: str) -> dict[str, Any] | None:
        """The child's answer; None where it died, or was given up."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it died since the last request
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], self._timeout_s)
        line = process.stdout.readline() if ready else b""
        if line:
            self._answered += 1
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = _exit_code(process) if ready else 0
        died = f"it ended the process with {f'signal {-code}' if code < 0 else f'exit code {code}'}"
        self._last_words = died if ready else f"no answer within {self._timeout_s:g} s"
        self.close()
        return None

    def close(self) -> None:
        """End the child, if it runs."""
        process, self._process = self._process, None
        self._answered = 0
        if process is None or self._owner != os.getpid():  # a fork's copy is the parent's
            return
        with contextlib.suppress(OSError):
            _closed(process.stdin)
        process.kill()
        process.wait()
        _closed(process.stdout)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                python_command("-c", self._program),
                env=child_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._owner = os.getpid()
        return self._process


def serve(answer: Callable[[str], Any]) -> None:
    """Answer requests until there are no more; called in the child."""
    # Libraries write to standard output as they like: answers go by a descriptor of their own.
    with os.fdopen(os.dup(1), "wb", buffering=0) as out:
        os.dup2(2, 1)
        for line in sys.stdin.buffer:
            try:
                reply: dict[str, Any] = {"value": answer(json.loads(line))}
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told to the caller
                reply = {"error": f"{type(error).__name__}: {error}"}
            out.write(json.dumps(reply).encode() + b"\n")


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """The code of a process that has closed its output; it is killed where it does not end by itself."""
    try:
        return process.wait(_LAST_WORDS_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _closed(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        pipe.close()
