"""Child processes of this package: they import what their parent imports, and one that crashes is an outcome."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Outcome", "child_environment", "python_command", "run_python"]


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


def python_command(*arguments: str) -> list[str]:
    """Return the command that runs this Python, without the current folder on its module path.

    ``python -c`` and ``python -m`` put the current folder first, before the standard library: a file ``select.py`` that
    lies beside a downloaded model would be imported in place of Python's own. ``-P`` leaves that out, see
    https://docs.python.org/3/using/cmdline.html#cmdoption-P.

    Example:
        >>> python_command("-c", "pass")[1:]
        ['-P', '-c', 'pass']
    """
    return [sys.executable, "-P", *arguments]


def child_environment() -> dict[str, str]:
    """Return the environment of a child that is to import what this process imports, and from nowhere else."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(_module_path())}


def run_python(
    arguments: Sequence[str],
    *,
    folder: str | None = None,
    timeout_s: float = 300,
    variables: Mapping[str, str] | None = None,
) -> Outcome:
    """Run this Python to its end, with the modules that this process can import.

    Example:
        >>> run_python(["-c", "import os; os.abort()"]).ended_by
        'ended with signal SIGABRT'
    """
    try:
        ended = subprocess.run(  # noqa: S603 - this Python, with arguments that this package makes
            python_command(*arguments),
            cwd=folder,
            env={**child_environment(), **(variables or {})},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(None, "", "")
    return Outcome(ended.returncode, ended.stdout, ended.stderr)


def _module_path() -> list[str]:
    """``sys.path`` as absolute folders, so that it means the same in a child that runs elsewhere."""
    folders = []
    for entry in sys.path:
        # Python ignores what is no text. A colon would part an entry in two, the second of which is a relative folder.
        if isinstance(entry, str) and os.pathsep not in entry:
            # An empty entry is the current folder, as at a prompt or in a notebook. Where that was removed, Python
            # passes over relative entries.
            with contextlib.suppress(FileNotFoundError):
                folders.append(os.path.abspath(entry))
    return [folder for folder in dict.fromkeys(folders) if os.pathsep not in folder]
