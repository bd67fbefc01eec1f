"""A program of another project, run in a process of its own: one that crashes is an outcome, not a crash."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Outcome", "run_python"]


@dataclass(frozen=True)
class Outcome:
    """How a child process ended.

    Attributes:
        code: Its exit code; negative for the signal that ended it, None where it did not end in time.
        output: What it wrote to standard output.
        errors: What it wrote to standard error.
    """

    code: int | None
    output: str
    errors: str

    @property
    def ended_by(self) -> str:
        """How it failed, in words; empty where it did not."""
        if self.code is None:
            return "gave no answer in time"
        if self.code < 0:
            return f"ended with signal {signal.Signals(-self.code).name}"
        return f"ended with exit code {self.code}" if self.code else ""


def run_python(arguments: Sequence[str], *, folder: str, timeout_s: float = 300) -> Outcome:
    """Run this Python with the modules that this process can import.

    Args:
        arguments: What follows ``python`` on the command line.
        folder: The folder in which it runs.
        timeout_s: Seconds after which it is ended.

    Returns:
        How it ended.

    Example:
        >>> run_python(["-c", "import os; os.abort()"], folder=".").ended_by
        'ended with signal SIGABRT'
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        ended = subprocess.run(  # noqa: S603 - this Python, with arguments that this package makes
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(None, "", "")
    return Outcome(ended.returncode, ended.stdout, ended.stderr)
