"""Channel: requests and replies of a child process, and the loop that serves them."""

import os
import pickle
import sys
import threading
import time
import traceback
from typing import IO, Any

from keras_precision.core import errors
from keras_precision.core.system.child_process import reply_stream

__all__ = ["Channel", "error_from_child", "main"]

_WATCH_S = 1.0


class Channel:
    """Requests of the parent, one after the other, and their replies."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes]) -> None:
        self._requests, self._replies = requests, replies

    def receive(self) -> tuple[str, tuple[Any, ...]]:
        """Return the name of the next method, and its arguments; EOFError once the parent has closed the pipe."""
        method, args = pickle.load(self._requests)
        return str(method), tuple(args)

    def reply(self, value: Any) -> None:
        """Send the value of the last request."""
        self._send(("value", value))

    def reply_error(self, error: BaseException) -> None:
        """Send the error of the last request."""
        trace = "".join(traceback.format_exception(error))
        self._send(("error", type(error).__name__, str(error), trace))

    def _send(self, message: tuple[Any, ...]) -> None:
        pickle.dump(message, self._replies)
        self._replies.flush()


def error_from_child(kind: str, message: str) -> errors.PrecisionError | None:
    """Return the exception of this package that a child raised, by its class name; None if it was another."""
    known: type[errors.PrecisionError] | None = getattr(errors, kind, None) if kind in errors.__all__ else None
    return None if known is None or not issubclass(known, errors.PrecisionError) else known(message)


def main() -> None:
    """Create the object that the parent sends, and call its methods until the parent closes the pipe."""
    replies = reply_stream()
    threading.Thread(target=_exit_with, args=(os.getppid(),), daemon=True).start()
    channel = Channel(sys.stdin.buffer, replies)
    try:
        served: Any = None
        while True:
            method, args = channel.receive()
            try:
                if method == "serve":
                    served = pickle.loads(args[0])(channel)  # unpickling may import the module of a function
                    channel.reply(None)
                else:
                    channel.reply(getattr(served, method)(*args))
            except Exception as error:  # noqa: BLE001 - any error is sent to the parent
                channel.reply_error(error)
    except EOFError:
        return


def _exit_with(parent: int) -> None:
    """Exit when the parent has ended, even during a long training."""
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(1)


if __name__ == "__main__":
    main()
