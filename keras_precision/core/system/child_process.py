"""Child processes of this package: they import what their parent imports, and a crash is a result like any other."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, BinaryIO

from keras_precision.core.system import parent_watch

__all__ = [
    "ChildProcess",
    "CompletedChild",
    "child_environment",
    "exit_reason",
    "python_command",
    "reply_stream",
    "run_python",
]


@dataclass(frozen=True)
class CompletedChild:
    """How a child process ended.

    Attributes:
        code: Its exit code; negative for the signal that ended it, None if it did not end in time.
        output: Its standard output.
        errors: Its standard error.
    """

    code: int | None
    output: str
    errors: str

    @property
    def ended_by(self) -> str:
        """How it failed, in words; empty if it did not."""
        if self.code is None:
            return "gave no answer in time"
        return f"ended with {exit_reason(self.code)}" if self.code else ""


class ChildProcess:
    """A Python process that reads requests from its standard input, and writes replies to its standard output.

    It ends with this process, however that ends.

    ``environment`` is ``child_environment()`` by default; with ``own_session``, Ctrl-C at the terminal does not reach it.
    """

    def __init__(
        self,
        program: str,
        *,
        environment: Mapping[str, str] | None = None,
        errors: IO[bytes] | int = subprocess.DEVNULL,
        own_session: bool = False,
    ) -> None:
        self._owner = os.getpid()
        self._process = subprocess.Popen(  # noqa: S603 - this Python, with a program of this package
            python_command("-c", program),
            env=child_environment() if environment is None else environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=own_session,
        )
        parent_watch.watch(self._process.pid)

    @property
    def is_running(self) -> bool:
        """Whether it runs, and belongs to this process: a fork's copy belongs to the parent."""
        return self._owner == os.getpid() and self._process.poll() is None

    @property
    def replies(self) -> IO[bytes]:
        """Its standard output; at the end of the file, it has ended or is about to."""
        assert self._process.stdout is not None
        return self._process.stdout

    def send(self, request: bytes) -> None:
        """Write a request; if the process has ended, its missing reply will show that."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(request)
            self._process.stdin.flush()

    def wait_for_reply(self, timeout_s: float | None) -> bool:
        """Wait until there is something to read in ``replies``, or their end; False once the time is over."""
        return bool(select.select([self.replies], [], [], timeout_s)[0])

    def exit_code(self, timeout_s: float | None = None) -> int:
        """Return the exit code of a process whose replies have ended; it is killed if it takes longer than that."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def close(self) -> None:
        """End the process, if it runs and belongs to this one."""
        if self._owner != os.getpid():
            return
        process = self._process
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        process.kill()
        process.wait()
        parent_watch.release(process.pid)
        self.replies.close()


def reply_stream() -> BinaryIO:
    """Return what the parent of this child reads as ``replies``; standard output becomes standard error.

    Libraries write to standard output at will, so replies need a descriptor of their own.
    """
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return stream


def exit_reason(code: int) -> str:
    """Return an exit code in words, where negative ones are signals.

    Example:
        >>> exit_reason(3), exit_reason(-9)
        ('exit code 3', 'signal SIGKILL')
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"signal {-code}"


def python_command(*arguments: str) -> list[str]:
    """Return the command that runs this Python, without the current folder on its module path.

    ``python -c`` and ``python -m`` put the current folder first, before the standard library: a file ``select.py`` next
    to a downloaded model would be imported in place of Python's own. ``-P`` leaves that out, see
    https://docs.python.org/3/using/cmdline.html#cmdoption-P.

    Example:
        >>> python_command("-c", "pass")[1:]
        ['-P', '-c', 'pass']
    """
    return [sys.executable, "-P", *arguments]


def child_environment() -> dict[str, str]:
    """Return the environment of a child that imports what this process imports, and from nowhere else."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(_module_path())}


def run_python(
    arguments: Sequence[str],
    *,
    folder: str | None = None,
    timeout_s: float = 300,
    variables: Mapping[str, str] | None = None,
) -> CompletedChild:
    """Run this Python to its end, with the modules that this process can import, and more environment variables.

    It ends with this process, and once its time is over.

    Example:
        >>> run_python(["-c", "import os; os.abort()"]).ended_by
        'ended with signal SIGABRT'
    """
    process = subprocess.Popen(  # noqa: S603 - this Python, with arguments of this package
        python_command(*arguments),
        cwd=folder,
        env={**child_environment(), **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    with process:
        parent_watch.watch(process.pid)
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return CompletedChild(None, "", "")
        finally:
            process.kill()  # does nothing to a process that has ended
            process.wait()
            parent_watch.release(process.pid)
    return CompletedChild(process.returncode, output, errors)


def _module_path() -> list[str]:
    """``sys.path`` as absolute folders, so that it means the same in a child that runs in another folder."""
    folders = []
    for entry in sys.path:
        # Python ignores entries that are not text. A colon would split an entry in two, the second a relative folder.
        if isinstance(entry, str) and os.pathsep not in entry:
            # An empty entry is the current folder, as at a prompt or in a notebook. If that was removed, Python
            # ignores relative entries.
            with contextlib.suppress(FileNotFoundError):
                folders.append(os.path.abspath(entry))
    return [folder for folder in dict.fromkeys(folders) if os.pathsep not in folder]
