"""Worker: one fresh Python process that does what it is asked, and whose end harms nobody."""

import contextlib
import os
import pickle
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import cloudpickle

from keras_precision.core.errors import InputError, WorkerError
from keras_precision.core.system.child_process import child_environment, python_command
from keras_precision.experiments.channel import raised

__all__ = ["Worker", "packed"]

_PROGRAM = "from keras_precision.experiments.channel import main; main()"
_LAST_LINES = 15
_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYTHONHASHSEED": "0",
    # A process of JAX, or of TensorFlow, would take most of a GPU for itself, and others wait beside it.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}


def packed(thing: Any, what: str) -> bytes:
    """Return something as it travels to another process.

    Args:
        thing: A function, data, or anything else.
        what: What it is, for the message.

    Returns:
        Bytes that ``pickle.loads`` makes it from.

    Raises:
        InputError: It cannot travel.
    """
    try:
        return bytes(cloudpickle.dumps(thing))
    except (pickle.PicklingError, TypeError, AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(
            f"Expected {what} that can be sent to another process. Received: one that cannot be pickled "
            f"({type(error).__name__}: {error}). Pass a function that makes what it needs when it is called, "
            "or 'module:function'."
        ) from error


class Worker:
    """A process that serves one object: its methods are called from here.

    It is a fresh interpreter, so that memory and global state are its own. It ignores Ctrl-C, which
    this process hears, and it ends when this process does.

    Args:
        serve: A function of the child's channel, packed, that makes the object.
        name: What messages call it.
        backend: The backend of Keras in the child; None for the one that Keras finds by itself.
        environment: More variables for the child.
        deadline: When to give its start up, as ``time.monotonic`` counts.

    Raises:
        WorkerError: The object could not be made.
    """

    def __init__(
        self,
        serve: bytes,
        name: str,
        backend: str | None = None,
        environment: Mapping[str, str] | None = None,
        deadline: float | None = None,
    ) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        backends = {} if backend is None else {"KERAS_BACKEND": backend}
        self._process = subprocess.Popen(
            python_command("-c", _PROGRAM),
            env={**_QUIET, **child_environment(), **backends, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C reaches this process alone
        )
        try:
            self.ask("serve", serve, deadline=deadline)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the worker."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End it."""
        self.close()

    def ask(self, method: str, *args: Any, deadline: float | None = None) -> Any:
        """Call a method of the object, and wait for what it returns.

        Args:
            method: Its name.
            *args: What it is given.
            deadline: When to give it up, as ``time.monotonic`` counts; None for never.

        Returns:
            What it returned.

        Raises:
            PrecisionError: It raised one; the same is raised here.
            WorkerError: It raised something else, ended, or did not answer in time.
        """
        self.send(method, *args)
        return self.receive(deadline)

    def send(self, method: str, *args: Any) -> None:
        """Ask for a call, and do not wait for it."""
        stream = self._process.stdin
        assert stream is not None
        with contextlib.suppress(BrokenPipeError):  # it died: receive will tell
            stream.write(pickle.dumps((method, args)))
            stream.flush()

    def receive(self, deadline: float | None = None) -> Any:
        """Wait for what the last call returned, as ``ask`` does."""
        stream = self._process.stdout
        assert stream is not None
        if deadline is not None:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([stream], [], [], left)[0]:
                self.close()
                raise WorkerError(f"Expected '{self.name}' to end within its time. Received: no answer. Allow more.")
        try:
            answer = pickle.load(stream)
        except (EOFError, pickle.UnpicklingError):
            raise WorkerError(self._last_words()) from None
        if answer[0] == "value":
            return answer[1]
        _, kind, message, told = answer
        ours = raised(kind, message)
        if ours is not None:
            raise ours
        raise WorkerError(f"Expected '{self.name}' to run. Received: {kind}: {message}\n{_end_of(told.splitlines())}")

    def log(self) -> list[str]:
        """Return the lines that the process has written so far."""
        size = os.fstat(self._log.fileno()).st_size  # read in place: the process writes where the file stands
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace").splitlines()

    def close(self) -> None:
        """End the process, if it runs."""
        process = self._process
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._log.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = " It may have run out of memory: try a smaller batch." if code == -signal.SIGKILL else ""
        return f"Expected '{self.name}' to run. Received: its process ended with {how}.{hint}\n{_end_of(self.log())}"


def _end_of(log: Sequence[str]) -> str:
    lines = [line for line in log if line.strip()]
    return "\n".join(lines[-_LAST_LINES:])
