"""Role of this process in a distributed search, from KerasTuner's environment variables and two of this package."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from keras_precision.core.errors import PrecisionError
from keras_precision.core.system.files import write_atomic

__all__ = [
    "RESTARTED",
    "VERDICT",
    "chief_address",
    "is_chief",
    "is_first",
    "is_worker",
    "loopback_by_default",
    "record_verdict",
]

RESTARTED = "KERAS_PRECISION_RESTARTED"
"""Set in a process that replaces one that died."""

VERDICT = "KERAS_PRECISION_VERDICT"
"""The path of a file for the error with which a search has ended: its chief must not be restarted."""

_IP, _PORT, _ID = "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID"
_LOOPBACK = "127.0.0.1"


def is_chief() -> bool:
    """Whether this process serves trials to workers."""
    return _is_distributed() and "chief" in os.environ.get(_ID, "")


def is_worker() -> bool:
    """Whether this process asks a chief for trials."""
    return _is_distributed() and not is_chief()


def _is_distributed() -> bool:
    """Whether an address is set, or a port and a name, which mean the loopback address."""
    return bool(os.environ.get(_IP)) or (_PORT in os.environ and _ID in os.environ)


def is_first() -> bool:
    """Whether this process may start a new search: not a worker, and not a restarted process."""
    return not is_worker() and RESTARTED not in os.environ


@contextmanager
def record_verdict() -> Iterator[None]:
    """Write an error that ends a chief's search to the file of ``VERDICT``, for the process that launched the chief."""
    try:
        yield
    except PrecisionError as error:
        if VERDICT in os.environ and is_chief():
            write_atomic(os.environ[VERDICT], str(error))
        raise


def chief_address() -> str:
    """Return ``host:port`` of the chief.

    The default host is 127.0.0.1, out of reach for other machines: KerasTuner's service has no encryption and no
    authentication.
    """
    return f"{os.environ.get(_IP) or _LOOPBACK}:{os.environ[_PORT]}"


@contextmanager
def loopback_by_default() -> Iterator[None]:
    """Set the loopback address while KerasTuner creates a worker's client, if no address is set.

    KerasTuner 1.4.8 recognizes a distributed search by this variable alone, see ``has_chief_oracle`` in
    https://github.com/keras-team/keras-tuner/blob/v1.4.8/keras_tuner/src/distribute/utils.py; once it has a default of
    its own, this function can go.
    """
    before = os.environ.get(_IP)
    if before or not _is_distributed():
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
