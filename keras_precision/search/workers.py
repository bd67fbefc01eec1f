"""Run one script as a chief and several workers on this machine, and restart a process that dies.

::

    python -m keras_precision.search.workers --workers 3 search.py

The script builds a ``kp.PrecisionTuner``, or any tuner of KerasTuner, and calls ``search``. On several machines, run the
same script on all of them with KerasTuner's environment variables: see docs/search.md.
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
from keras_precision.core.system import parent_watch
from keras_precision.search.distributed.role import RESTARTED, VERDICT

__all__ = ["main", "run_workers"]

_POLL_S = 0.2


def run_workers(
    command: Sequence[str],
    workers: int = 3,
    *,
    port: int | None = None,
    restarts: int = 10,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a command as KerasTuner's chief and as several workers until all have ended; return the number of restarts.

    A worker that dies is restarted under the same name and continues its trial; a chief continues from its files.
    ``restarts`` limits the restarts of all processes together, and a port of None is a free one. The processes end with
    this one, even if it is killed.
    """
    if workers < 1:
        raise InputError(f"Expected workers >= 1. Received: {workers}.")
    shared = {
        **(os.environ if environment is None else environment),
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(port or _free_port()),
    }
    names = ["chief", *(f"worker{number}" for number in range(workers))]
    with tempfile.TemporaryDirectory() as temporary:
        return _supervise(command, names, {**shared, VERDICT: str(Path(temporary) / "verdict.txt")}, restarts)


def _supervise(command: Sequence[str], names: Sequence[str], shared: Mapping[str, str], max_restarts: int) -> int:
    """Run the processes until all have ended, and return how many were restarted."""
    verdict = Path(shared[VERDICT])
    running: dict[str, subprocess.Popen[bytes]] = {}
    restarts = 0
    try:
        for name in names:
            running[name] = _start(command, shared, name)
        while running:
            time.sleep(_POLL_S)
            for name, process in list(running.items()):
                code = process.poll()
                if code is not None:
                    parent_watch.release(process.pid)
                if code == 0:
                    del running[name]
                elif name == "chief" and verdict.exists():
                    raise SearchError(verdict.read_text(encoding="utf-8"))
                elif code is not None:
                    restarts += 1
                    if restarts > max_restarts or "chief" not in running:
                        raise SearchError(
                            f"Expected processes that run to their end. Received: exit code {code} from {name}, after {restarts - 1} "
                            "restarts. Run the command by itself to see the error."
                        )
                    running[name] = _start(command, {**shared, RESTARTED: "1"}, name)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
            parent_watch.release(process.pid)
    return restarts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m keras_precision.search.workers --workers N SCRIPT ...``; the exit code is 2 if the search failed."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_precision.search.workers",
        description="Run a script as KerasTuner's chief and its workers.",
    )
    parser.add_argument("--workers", type=int, default=3, help="number of workers (%(default)s)")
    parser.add_argument("--restarts", type=int, default=10, help="maximum number of restarts (%(default)s)")
    parser.add_argument("script", help="a Python script that builds a tuner and calls search")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    options = parser.parse_args(arguments)
    command = [sys.executable, options.script, *options.arguments]
    try:
        run_workers(command, options.workers, restarts=options.restarts)
    except (InputError, SearchError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _start(command: Sequence[str], shared: Mapping[str, str], name: str) -> "subprocess.Popen[bytes]":
    # The user's own script: it imports from its own folder first, as every Python script does.
    process = subprocess.Popen(list(command), env={**shared, "KERASTUNER_TUNER_ID": name})
    parent_watch.watch(process.pid)
    return process


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
