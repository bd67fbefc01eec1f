"""Role: what the environment variables of KerasTuner, and two of ours, make of this process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from keras_precision.errors import PrecisionError
from keras_precision.files import write_whole

__all__ = ["BEGUN_AGAIN", "VERDICT", "chief_address", "is_chief", "is_first", "is_worker", "verdict"]

BEGUN_AGAIN = "KERAS_PRECISION_BEGUN_AGAIN"
"""Set for a process that takes the place of one that died."""

VERDICT = "KERAS_PRECISION_VERDICT"
"""The file in which a chief says that its search has ended with an error: it is not to be begun again."""


def is_chief() -> bool:
    """Tell whether other processes ask this one what to run."""
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")


def is_worker() -> bool:
    """Tell whether this process asks a chief what to run."""
    return "KERASTUNER_ORACLE_IP" in os.environ and not is_chief()


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
    """Return where the chief answers: host and port."""
    return f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
