"""Role: what the environment variables of KerasTuner, and two of ours, make of this process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from keras_precision.core.errors import PrecisionError
from keras_precision.core.system.files import write_whole

__all__ = [
    "BEGUN_AGAIN",
    "VERDICT",
    "chief_address",
    "is_chief",
    "is_first",
    "is_worker",
    "loopback_by_default",
    "verdict",
]

BEGUN_AGAIN = "KERAS_PRECISION_BEGUN_AGAIN"
"""Set for a process that takes the place of one that died."""

VERDICT = "KERAS_PRECISION_VERDICT"
"""The file in which a chief says that its search has ended with an error: it is not to be begun again."""

_IP, _PORT, _ID = "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID"
_LOOPBACK = "127.0.0.1"


def is_chief() -> bool:
    """Tell whether other processes ask this one what to run."""
    return _is_one_of_several() and "chief" in os.environ.get(_ID, "")


def is_worker() -> bool:
    """Tell whether this process asks a chief what to run."""
    return _is_one_of_several() and not is_chief()


def _is_one_of_several() -> bool:
    """An address says so, or a port and a name: the address is then that of this machine alone."""
    return bool(os.environ.get(_IP)) or (_PORT in os.environ and _ID in os.environ)


def is_first() -> bool:
    """Tell whether this process may begin a search afresh: not a worker, and not one that goes on for one that died."""
    return not is_worker() and BEGUN_AGAIN not in os.environ


@contextmanager
def verdict() -> Iterator[None]:
    """Tell whoever began a chief that its search has ended, where that is with an error.

    Yields:
        Nothing.
    """
    try:
        yield
    except PrecisionError as error:
        if VERDICT in os.environ and is_chief():
            write_whole(os.environ[VERDICT], str(error))
        raise


def chief_address() -> str:
    """Return where the chief answers: host and port.

    Without an address, or with an empty one, this is 127.0.0.1, which no other machine reaches: KerasTuner's service is
    neither encrypted nor authenticated.

    Returns:
        The two, with a colon between them.
    """
    return f"{os.environ.get(_IP) or _LOOPBACK}:{os.environ[_PORT]}"


@contextmanager
def loopback_by_default() -> Iterator[None]:
    """Let KerasTuner make a worker where no address is set: its client reads the variable when it is made.

    KerasTuner 1.4 takes a process for one of several by this variable alone, see ``has_chief_oracle`` in
    keras_tuner/src/distribute/utils.py; where it has a default of its own, this can go.

    Yields:
        Nothing.
    """
    before = os.environ.get(_IP)
    if before or not _is_one_of_several():
        yield
        return
    os.environ[_IP] = _LOOPBACK
    try:
        yield
    finally:
        if before is None:
            del os.environ[_IP]
        else:
            os.environ[_IP] = before
