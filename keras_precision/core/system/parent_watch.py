"""Processes that end with this one, however it ends: a small process of their own watches over them."""

import atexit
import contextlib
import os
import subprocess
import sys
import threading

__all__ = ["release", "watch"]

# A handle of a process (Linux: https://man7.org/linux/man-pages/man2/pidfd_open.2.html) never means a later process with
# the same number. PR_SET_PDEATHSIG would need no watcher, but it fires when the *thread* that started a child ends.
_PROGRAM = """
import os, signal, sys
handles = {}
for line in sys.stdin:
    number = int(line)
    if number < 0:
        handle = handles.pop(-number, None)
        if handle is not None and handle >= 0:
            os.close(handle)
        continue
    try:
        handles[number] = os.pidfd_open(number) if hasattr(os, "pidfd_open") else -1
    except OSError:
        pass
for number, handle in handles.items():
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL) if handle >= 0 else os.kill(number, getattr(signal, "SIGKILL", 15))
    except OSError:
        pass
"""


class _Watcher:
    """The process that reads the numbers of children, and kills those that are left at the end of its input."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process = subprocess.Popen(  # noqa: S603 - this Python, with a program of this package
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C at the terminal, or a signal to the whole group, does not reach it
            cwd=os.path.abspath(os.sep),  # the current folder may be removed
        )

    def tell(self, number: int) -> None:
        """Begin to watch over a process, or end that for a negative number."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n".encode())
        self._process.stdin.flush()

    def close(self) -> None:
        """Forget a watcher that has ended."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process.wait()


class _Watch:
    """The children of this process, and their watcher, which starts with the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watcher: _Watcher | None = None
        self._numbers: set[int] = set()

    def add(self, number: int) -> None:
        """Let a child end with this process."""
        with self._lock:
            if self._watcher is not None and self._watcher.owner != os.getpid():  # a fork: those are its parent's
                self._watcher, self._numbers = None, set()
            self._numbers.add(number)
            self._send(number)

    def remove(self, number: int) -> None:
        """Forget a child, which has ended."""
        with self._lock:
            if self._watcher is not None and self._watcher.owner == os.getpid() and number in self._numbers:
                self._numbers.remove(number)
                with contextlib.suppress(BrokenPipeError):  # it was killed, and the next child starts another
                    self._watcher.tell(-number)

    def close(self) -> None:
        """End the watcher, with the children that are left."""
        with self._lock:
            if self._watcher is not None and self._watcher.owner == os.getpid():
                self._watcher.close()
            self._watcher, self._numbers = None, set()

    def _send(self, number: int) -> None:
        """Tell the watcher; a new one, of all children, if it was killed."""
        if self._watcher is not None:
            try:
                return self._watcher.tell(number)
            except BrokenPipeError:
                self._watcher.close()
        self._watcher = _Watcher()
        for known in self._numbers:
            self._watcher.tell(known)
        return None


_WATCH = _Watch()
atexit.register(
    _WATCH.close
)  # at import: those that close children in an orderly way are registered later, and run first


def watch(number: int) -> None:
    """Let the child process of that number end with this one, even if this one is killed."""
    _WATCH.add(number)


def release(number: int) -> None:
    """Stop watching over a child that has ended."""
    _WATCH.remove(number)
