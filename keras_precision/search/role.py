"""Role: what the environment variables of KerasTuner, and one of ours, make of this process."""

import os

__all__ = ["BEGUN_AGAIN", "chief_address", "is_chief", "is_first", "is_worker"]

BEGUN_AGAIN = "KERAS_PRECISION_BEGUN_AGAIN"
"""Set for a process that takes the place of one that died."""


def is_chief() -> bool:
    """Tell whether other processes ask this one what to run."""
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")


def is_worker() -> bool:
    """Tell whether this process asks a chief what to run."""
    return "KERASTUNER_ORACLE_IP" in os.environ and not is_chief()


def is_first() -> bool:
    """Tell whether this process may begin a search afresh: not a worker, and not one that goes on for one that died."""
    return not is_worker() and BEGUN_AGAIN not in os.environ


def chief_address() -> str:
    """Return where the chief answers: host and port."""
    return f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
