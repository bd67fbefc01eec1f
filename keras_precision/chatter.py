"""What libraries write to the process's output goes to logging instead."""

import contextlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

__all__ = ["captured"]

_LOG = logging.getLogger("keras_precision")
_LOCK = threading.RLock()


@contextlib.contextmanager
def captured(source: str) -> Iterator[None]:
    """Send what is written to standard output and error, by C++ code too, to logging.

    TensorFlow's converter and the interpreters' delegates write to the file descriptors directly,
    so that ``contextlib.redirect_stdout`` does not catch them. The lines go to the logger
    ``keras_precision`` at level DEBUG.

    Args:
        source: What speaks, for the log line.

    Yields:
        Nothing.

    Example:
        >>> with captured("converter"):
        ...     print("not seen")
    """
    with _LOCK, tempfile.TemporaryFile() as heard:
        saved = []
        try:
            for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
                _flush(stream)
                saved.append((descriptor, os.dup(descriptor)))
                os.dup2(heard.fileno(), descriptor)
            # Python's own streams may go elsewhere (a notebook, a test runner): they are caught too.
            with open(os.dup(heard.fileno()), "w", encoding="utf-8", errors="replace", buffering=1) as text:
                with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                    yield
        finally:
            for descriptor, original in saved:
                os.dup2(original, descriptor)
                os.close(original)
            heard.seek(0)
            for line in heard.read().decode(errors="replace").splitlines():
                _LOG.debug("%s: %s", source, line)


def _flush(stream: object) -> None:
    flush = getattr(stream, "flush", None)  # sys.stdout is None under pythonw and in some services
    if flush is not None:
        flush()
