"""Channel: what a child process hears and answers, and the loop that it runs."""

import os
import pickle
import sys
import threading
import time
import traceback
from typing import IO, Any

from keras_precision.core import errors

__all__ = ["Channel", "main", "raised"]

_WATCH_S = 1.0


class Channel:
    """Requests of the parent, one after the other, and their answers.

    Args:
        requests: Where they come from.
        answers: Where the answers go.
    """

    def __init__(self, requests: IO[bytes], answers: IO[bytes]) -> None:
        self._requests, self._answers = requests, answers

    def receive(self) -> tuple[str, tuple[Any, ...]]:
        """Return the next request: the name of a method, and its arguments.

        Raises:
            EOFError: The parent has gone, or is done.
        """
        method, args = pickle.load(self._requests)
        return str(method), tuple(args)

    def answer(self, value: Any) -> None:
        """Answer the last request."""
        self._send(("value", value))

    def refuse(self, error: BaseException) -> None:
        """Say that the last request failed, and of what."""
        told = "".join(traceback.format_exception(error))
        self._send(("error", type(error).__name__, str(error), told))

    def _send(self, message: tuple[Any, ...]) -> None:
        pickle.dump(message, self._answers)
        self._answers.flush()


def raised(kind: str, message: str) -> errors.PrecisionError | None:
    """Return the exception of this package that a child raised; None if it was another.

    Args:
        kind: The name of its class.
        message: What it said.

    Returns:
        It, to be raised again.
    """
    known: type[errors.PrecisionError] | None = getattr(errors, kind, None) if kind in errors.__all__ else None
    return None if known is None or not issubclass(known, errors.PrecisionError) else known(message)


def main() -> None:
    """Make what the parent asks for, and let it answer requests until there are no more."""
    # Libraries write to standard output as they like: answers go by a descriptor of their own.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    channel = Channel(sys.stdin.buffer, answers)
    try:
        served: Any = None
        while True:
            method, args = channel.receive()
            try:
                if method == "serve":
                    served = pickle.loads(args[0])(channel)  # a function may be imported here
                    channel.answer(None)
                else:
                    channel.answer(getattr(served, method)(*args))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told to the parent
                channel.refuse(error)
    except EOFError:
        return


def _end_with(parent: int) -> None:
    """End this process when its parent has: it may be in the midst of a long training."""
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(1)


if __name__ == "__main__":
    main()
