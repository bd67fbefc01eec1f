"""Worker: a fresh Python process that serves one object, isolated from the caller."""

import os
import pickle
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import cloudpickle

from keras_precision.core.errors import InputError, WorkerError
from keras_precision.core.system.child_process import ChildProcess, child_environment, exit_reason
from keras_precision.experiments.channel import error_from_child

__all__ = ["Worker", "deadline_after", "serialize"]

_PROGRAM = "from keras_precision.experiments.channel import main; main()"
_LAST_LINES = 15
_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYTHONHASHSEED": "0",
    # By default JAX and TensorFlow reserve most of a GPU for one process, while other processes wait.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}


def serialize(value: Any, what: str) -> bytes:
    """Return a value as bytes for ``pickle.loads`` in another process; ``what`` names it in the message of the InputError."""
    try:
        return bytes(cloudpickle.dumps(value))
    except (pickle.PicklingError, TypeError, AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(
            f"Expected {what} that can be sent to another process. Received: one that cannot be pickled "
            f"({type(error).__name__}: {error}). Pass a function that creates what it needs when it is called, "
            "or 'module:function'."
        ) from error


def deadline_after(time_limit: float | None) -> float | None:
    """Return the end of so many seconds, in ``time.monotonic``; None for no limit."""
    if time_limit is None:
        return None
    if not isinstance(time_limit, int | float) or not time_limit > 0:
        raise InputError(f"Expected time_limit to be a number above 0, in seconds, or None. Received: {time_limit!r}.")
    return time.monotonic() + time_limit


class Worker:
    """A process that serves one object: its methods are called from here.

    It is a fresh interpreter with its own memory and global state. It ignores Ctrl-C, which this process receives, and ends
    when this process does.

    Args:
        serve: A serialized function of the child's channel that creates the object.
        name: Its name in messages.
        backend: The backend of Keras in the child; None for the default of Keras.
        environment: More variables for the child.
        deadline: The latest end of its start, in ``time.monotonic``.
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
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process runs
        backends = {} if backend is None else {"KERAS_BACKEND": backend}
        self._process = ChildProcess(
            _PROGRAM,
            environment={**_QUIET, **child_environment(), **backends, **(environment or {})},
            errors=self._log,
            own_session=True,
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
        """Close it."""
        self.close()

    def ask(self, method: str, *args: Any, deadline: float | None = None) -> Any:
        """Call a method of the object, and return its value; the deadline is in ``time.monotonic``, None for no limit.

        A PrecisionError of the child is raised here as it is, any other failure as a WorkerError.
        """
        self.send(method, *args)
        return self.receive(deadline)

    def send(self, method: str, *args: Any) -> None:
        """Send a call without waiting for its value."""
        self._process.send(pickle.dumps((method, args)))

    def receive(self, deadline: float | None = None) -> Any:
        """Wait for the value of the last call, as ``ask`` does."""
        if deadline is not None and not self._process.wait_for_reply(max(0.0, deadline - time.monotonic())):
            self.close()
            raise WorkerError(f"Expected '{self.name}' to end within its time. Received: no reply. Allow more time.")
        try:
            reply = pickle.load(self._process.replies)
        except (EOFError, pickle.UnpicklingError):
            raise WorkerError(self._exit_message()) from None
        if reply[0] == "value":
            return reply[1]
        _, kind, message, trace = reply
        error = error_from_child(kind, message)
        if error is not None:
            raise error
        raise WorkerError(f"Expected '{self.name}' to run. Received: {kind}: {message}\n{_end_of(trace.splitlines())}")

    def log(self) -> list[str]:
        """Return the log lines so far."""
        size = os.fstat(self._log.fileno()).st_size  # pread: the process writes at the shared file position
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace").splitlines()

    def close(self) -> None:
        """Kill the process if it runs."""
        self._process.close()
        self._log.close()

    def _exit_message(self) -> str:
        code = self._process.exit_code()
        hint = " It may have run out of memory: try a smaller batch." if code == -signal.SIGKILL else ""
        return f"Expected '{self.name}' to run. Received: its process ended with {exit_reason(code)}.{hint}\n{_end_of(self.log())}"


def _end_of(log: Sequence[str]) -> str:
    lines = [line for line in log if line.strip()]
    return "\n".join(lines[-_LAST_LINES:])
