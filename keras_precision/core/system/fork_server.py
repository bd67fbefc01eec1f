"""ForkServer: a process that has imported what its forks need, since importing TensorFlow takes seconds."""

import atexit
import ctypes
import importlib
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_precision.core.system.child_process import (
    ChildProcess,
    CompletedChild,
    child_environment,
    reply_stream,
    run_python,
)

__all__ = ["ForkServer", "serve"]

# Only on Linux: on macOS, system libraries may crash in a fork (https://github.com/python/cpython/issues/77906).
_CAN_FORK = sys.platform == "linux"
_IDLE_S = 120
"""Seconds without a call after which the process ends, since it occupies memory."""
_PR_SET_PDEATHSIG = 1  # https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html


class ForkServer:
    """Calls functions in processes of their own, which are forks of one that has imported what they need.

    A call sees the environment, the module path and the current folder of now, and what other calls did to the memory
    of their process is not in it. The process starts with the first call and ends with this one. Where forking is not
    safe, each call starts a Python of its own.

    Args:
        modules: What the process imports once. None of them may have started a thread that its functions need.
        variables: Environment variables of the process.
    """

    def __init__(self, modules: Sequence[str], variables: Mapping[str, str]) -> None:
        self._modules = tuple(modules)
        self._variables = dict(variables)
        self._process: ChildProcess | None = None
        self._surroundings: object = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def call(self, function: str, argument: str, timeout_s: float) -> CompletedChild:
        """Call ``function("argument")`` of a module, named as in ``"package.module:function"``.

        The output is not read; ``code`` is 1 after an exception, whose traceback is in ``errors``.
        """
        if not _CAN_FORK:
            module, name = function.split(":")
            program = f"import sys; from {module} import {name}; {name}(sys.argv[1])"
            return run_python(["-c", program, argument], timeout_s=timeout_s, variables=self._variables)
        with self._lock:
            completed = self._call([function, argument], timeout_s)
            if completed is None:  # it has ended between two calls
                completed = self._call([function, argument], timeout_s)
        return completed or CompletedChild(1, "", "the process ended without a reply")

    def close(self) -> None:
        """End the process, with the call that it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _call(self, request: list[str], timeout_s: float) -> CompletedChild | None:
        """Return how a call ended; None if the process has ended instead."""
        process = self._running()
        is_complete = False
        try:
            process.send(json.dumps(request).encode() + b"\n")
            if not process.wait_for_reply(timeout_s):
                return CompletedChild(None, "", "")
            line = process.replies.readline()
            is_complete = bool(line)
        finally:
            if not is_complete:
                self.close()
        if not line:
            return None
        code, errors = json.loads(line)
        return CompletedChild(code, "", errors)

    def _running(self) -> ChildProcess:
        environment = child_environment() | self._variables
        # pytest sets one of its variables anew for every test.
        seen = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
        surroundings = (seen, _current_folder())
        if self._process is None or not self._process.is_running or self._surroundings != surroundings:
            self.close()
            program = f"from keras_precision.core.system.fork_server import serve; serve({self._modules!r})"
            # own_session: Ctrl-C is for this process, which ends the other one.
            self._process = ChildProcess(program, environment=environment, own_session=True)
            self._surroundings = surroundings
        return self._process


def serve(modules: Sequence[str]) -> None:
    """Import modules, and make each call that is requested in a fork, until there are no more; called in the process."""
    with reply_stream() as replies:
        for module in modules:
            importlib.import_module(module)
        while True:
            signal.alarm(_IDLE_S)
            line = sys.stdin.buffer.readline()
            signal.alarm(0)
            if not line:
                return
            replies.write(json.dumps(_fork(*json.loads(line))).encode() + b"\n")
            replies.flush()


def _fork(function: str, argument: str) -> tuple[int, str]:
    """Make a call in a fork; return its exit code, negative for a signal, and what it wrote to standard error."""
    with tempfile.TemporaryFile() as errors:
        number = os.fork()
        if number == 0:
            _call_and_exit(function, argument, errors.fileno())
        _, status = os.waitpid(number, 0)
        errors.seek(0)
        return os.waitstatus_to_exitcode(status), errors.read().decode(errors="replace")


def _call_and_exit(function: str, argument: str, errors: int) -> None:
    """Call a function of a module, and end this fork without what the other process would do at its exit."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for descriptor in (1, 2):
            os.dup2(errors, descriptor)
        module, name = function.split(":")
        getattr(importlib.import_module(module), name)(argument)
        code = 0
    except BaseException:  # noqa: BLE001 - the caller shows it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _current_folder() -> Path | None:
    """Return the current folder; None if it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None
