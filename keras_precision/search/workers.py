"""One script as a chief and several workers on this machine, each begun again when it dies.

::

    python -m keras_precision.search.workers --workers 3 search.py

The script makes a ``kp.PrecisionTuner``, or any tuner of KerasTuner, and calls ``search``. On several machines, the same
script runs on each with KerasTuner's variables: see docs/search.md.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_precision.core.errors import InputError, SearchError
from keras_precision.search.distributed.role import BEGUN_AGAIN, VERDICT

__all__ = ["main", "run_workers"]

_LOOK_S = 0.2


def run_workers(
    command: Sequence[str],
    workers: int = 3,
    *,
    port: int | None = None,
    restarts: int = 10,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a command as KerasTuner's chief, and as several workers, until the chief has ended.

    A worker that dies is begun again under the same name, and takes up the trial that it had. A chief that dies is begun
    again, too: it goes on from its files.

    Args:
        command: What each process runs.
        workers: How many workers.
        port: Where the chief listens; None for one that is free.
        restarts: How often any process may be begun again, all together.
        environment: Environment variables of the processes; None for those of this one.

    Returns:
        How many processes were begun again.

    Raises:
        InputError: ``workers`` is not positive.
        SearchError: The search has ended with an error, or processes died more often than ``restarts`` allows.
    """
    if workers < 1:
        raise InputError(f"Expected workers >= 1. Received: {workers}.")
    shared = {
        **(os.environ if environment is None else environment),
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(port or _free_port()),
    }
    names = ["chief", *(f"worker{number}" for number in range(workers))]
    with tempfile.TemporaryDirectory() as passing:
        return _watched(command, names, {**shared, VERDICT: str(Path(passing) / "verdict.txt")}, restarts)


def _watched(command: Sequence[str], names: Sequence[str], shared: Mapping[str, str], restarts: int) -> int:
    """Run the processes until all have ended; how many were begun again."""
    verdict = Path(shared[VERDICT])
    running: dict[str, subprocess.Popen[bytes]] = {}
    again = 0
    try:
        for name in names:
            running[name] = _started(command, shared, name)
        while running:
            time.sleep(_LOOK_S)
            for name, process in list(running.items()):
                code = process.poll()
                if code == 0:
                    del running[name]
                elif name == "chief" and verdict.exists():
                    raise SearchError(verdict.read_text(encoding="utf-8"))
                elif code is not None:
                    again += 1
                    if again > restarts or "chief" not in running:
                        raise SearchError(
                            f"Expected processes that run to their end. Received: exit code {code} from {name}, after {again - 1} "
                            "restarts. Run the command by itself to see what is wrong."
                        )
                    running[name] = _started(command, {**shared, BEGUN_AGAIN: "1"}, name)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return again


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a script: ``python -m keras_precision.search.workers --workers N SCRIPT ...``.

    Args:
        arguments: The command line; None for the process's own.

    Returns:
        The exit code: 0, or 2 where the search could not be brought to its end.
    """
    parser = argparse.ArgumentParser(
        prog="python -m keras_precision.search.workers",
        description="Run a script as KerasTuner's chief and its workers.",
    )
    parser.add_argument("--workers", type=int, default=3, help="how many workers (%(default)s)")
    parser.add_argument("--restarts", type=int, default=10, help="how often a process may be begun again (%(default)s)")
    parser.add_argument("script", help="a Python script that makes a tuner and calls search")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    options = parser.parse_args(arguments)
    command = [sys.executable, options.script, *options.arguments]
    try:
        run_workers(command, options.workers, restarts=options.restarts)
    except (InputError, SearchError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _started(command: Sequence[str], shared: Mapping[str, str], name: str) -> "subprocess.Popen[bytes]":
    # The user's own script: it imports as Python lets every script, from its own folder first.
    return subprocess.Popen(list(command), env={**shared, "KERASTUNER_TUNER_ID": name})


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
