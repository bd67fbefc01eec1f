"""Role: what KerasTuner's environment variables make of this process."""

import os

__all__ = ["chief_address", "is_chief", "is_worker"]


def is_chief() -> bool:
    """Tell whether other processes ask this one what to run."""
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")


def is_worker() -> bool:
    """Tell whether this process asks a chief what to run."""
    return "KERASTUNER_ORACLE_IP" in os.environ and not is_chief()


def chief_address() -> str:
    """Return where the chief answers: host and port."""
    return f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
