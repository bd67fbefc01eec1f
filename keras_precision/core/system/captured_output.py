"""Output that libraries write to the process's standard streams is redirected to logging."""

import contextlib
import io
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["capture_output"]

_LOG = logging.getLogger("keras_precision")
_LOCK = threading.RLock()


@contextlib.contextmanager
def capture_output(source: str) -> Iterator[None]:
    """Log what is written to standard output and error, also by C++ code, as debug lines of the logger ``keras_precision``.

    TensorFlow's converter and the interpreters' delegates write to the file descriptors directly, which
    ``contextlib.redirect_stdout`` does not redirect.

    Example:
        >>> with capture_output("converter"):
        ...     print("not seen")
    """
    with _LOCK, tempfile.TemporaryFile(buffering=0) as output:  # one offset, shared with the descriptors
        try:
            with _descriptors_to(output.fileno()), _streams_to(output):
                yield
        finally:
            output.seek(0)
            for line in output.read().decode(errors="replace").splitlines():
                _LOG.debug("%s: %s", source, line)


@contextlib.contextmanager
def _descriptors_to(target: int) -> Iterator[None]:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as under pythonw, and in some services
            stream.flush()
    with contextlib.ExitStack() as restore:  # which goes on with the next where Ctrl-C comes while it restores one
        for descriptor in (1, 2):
            original = os.dup(descriptor)
            restore.callback(os.close, original)
            restore.callback(os.dup2, original, descriptor)
            os.dup2(target, descriptor)
        yield


@contextlib.contextmanager
def _streams_to(target: Any) -> Iterator[None]:
    """Redirect Python's own streams, too: in a notebook or a test runner, they do not write to the descriptors."""
    before = sys.stdout, sys.stderr
    relays = _Relay(target, before[0]), _Relay(target, before[1])
    with contextlib.ExitStack() as restore:
        for name, stream, relay in zip(("stdout", "stderr"), before, relays, strict=True):
            restore.callback(setattr, relay, "target", None)
            restore.callback(setattr, sys, name, stream)
            setattr(sys, name, relay)
        yield


class _Relay(io.TextIOBase):
    """Writes to ``target``, and to the original stream once that is None.

    A logging handler that a library creates during the redirection keeps a reference to this object for good.
    """

    def __init__(self, target: Any, original: Any) -> None:
        super().__init__()
        self.target, self._original = target, original

    def write(self, text: str) -> int:
        if self.target is not None:
            self.target.write(text.encode(errors="replace"))
        elif self._original is not None:
            self._original.write(text)
        return len(text)

    def flush(self) -> None:
        if self.target is None and self._original is not None:
            self._original.flush()
