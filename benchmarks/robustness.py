"""Damage in bulk: ``python benchmarks/robustness.py --mutants 10000 --kills 200``.

Mutants of every kind of file are drawn from seeds and read in child processes: what ends a process is a crash, what takes more
than ``--limit`` seconds a hang, and any error that is no ``PrecisionError`` a raw error. One that the package reads, or refuses,
has survived. After a refused file of a search, what its message says is done, and the search must go on.
Functions are killed at random moments by SIGKILL, SIGTERM and SIGINT, again and again in one folder: every file there must be whole
and finished, no trial that has ended may be lost, no process may go on for 5 s, and the next run must leave no other files.
Prints a table of each, and each failure with its seed.
"""

import argparse
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # before this folder, whose module has the package's name

from robustness.acts import ACTS
from robustness.kills import kill_often
from robustness.readers import KINDS

STARTING_S = 120
SHARES = {"search project": 0.2, ".keras of tf_keras": 0.4, ".h5 of tf_keras": 0.4}
"""How many mutants of kinds that take longer are drawn, for one of another kind."""


class Failure(NamedTuple):
    """What a mutant did: ``crash``, ``hang`` or ``raw error``, and the last lines of what was raised."""

    kind: str
    seed: int
    what: str
    reason: str


class Child:
    """A process that reads mutants of one kind; it is replaced when it ends or takes too long."""

    def __init__(self, kind: str, limit_s: float) -> None:
        self._kind, self._limit_s = kind, limit_s
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, seed: int) -> Failure | str:
        """Return ``read`` or ``refused``, or a failure."""
        process, limit_s = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{seed}\n".encode())
        process.stdin.flush()
        in_time = bool(select.select([process.stdout], [], [], limit_s)[0])
        line = process.stdout.readline() if in_time else b""
        if not line:
            self.close()
            return Failure(self._kind, seed, "crash" if in_time else "hang", f"exit code {process.returncode}")
        verdict, reason = json.loads(line)
        if verdict == "failed":
            return Failure(self._kind, seed, "raw error", "\n".join(reason.strip().splitlines()[-6:]))
        return "read" if verdict == "survived" else "refused"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _running(self) -> tuple[subprocess.Popen[bytes], float]:
        """Return the process, and the seconds for its next answer."""
        if self._process is not None:
            return self._process, self._limit_s
        tests = Path(__file__).parents[1] / "tests"
        path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
        variables = {**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "robustness.child", self._kind],
            env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return self._process, STARTING_S + self._limit_s


def read_mutants(kind: str, seeds: range, limit_s: float, until: float) -> Iterator[Failure | str]:
    """Yield what became of each mutant of a kind, until a time."""
    child = Child(kind, limit_s)
    try:
        for seed in seeds:
            if time.monotonic() > until:
                return
            yield child.read(seed)
    finally:
        child.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=0, help="of all kinds together")
    parser.add_argument("--kills", type=int, default=0, help="of all functions together")
    parser.add_argument(
        "--functions", nargs="+", choices=[*ACTS], default=[*ACTS], metavar="NAME", help=", ".join(ACTS)
    )
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS], default=[*KINDS], metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--seed", type=int, default=0, help="the first seed; others draw other mutants")
    parser.add_argument("--limit", type=float, default=60, help="seconds for a mutant (%(default)s)")
    parser.add_argument("--minutes", type=float, default=600, help="stop after these; the table says what was run")
    options = parser.parse_args(arguments)
    until = time.monotonic() + 60 * options.minutes
    if options.mutants:
        mutate(options.kinds, options.mutants, range(options.seed, sys.maxsize), options.limit, until)
    if options.kills:
        kill(options.functions, options.kills, options.seed, until)


def kill(functions: Sequence[str], count: int, seed: int, until: float) -> None:
    """Kill functions, and print the table of that."""
    print("| function | kills | nothing wrong | wrong |\n| :-- | --: | --: | --: |")
    wrong: list[str] = []
    counts: Counter[str] = Counter()
    for number, name in enumerate(functions):
        kills = Counter({"fine": 0, "wrong": 0})
        most = count // len(functions) + (number < count % len(functions))
        with tempfile.TemporaryDirectory() as folder:
            for outcome in kill_often(name, Path(folder), most, random.Random(seed + number)):
                kills["wrong" if outcome else "fine"] += 1
                wrong += [f"{name}: {what}" for what in outcome]
                if time.monotonic() > until:
                    break
        print(f"| {name} | {kills.total()} | {kills['fine']} | {kills['wrong']} |", flush=True)
        counts += kills
    print(f"| all | {counts.total()} | {counts['fine']} | {counts['wrong']} |")
    print("\n".join(wrong))


def mutate(kinds: Sequence[str], total_count: int, seeds: range, limit_s: float, until: float) -> None:
    """Read mutants, and print the table of that."""
    shares = {kind: SHARES.get(kind, 1.0) for kind in kinds}
    failures: list[Failure] = []
    print(
        "| kind | tried | read | refused | crashes | hangs | raw errors |\n| :-- | --: | --: | --: | --: | --: | --: |"
    )
    total: Counter[str] = Counter()
    for kind, share in shares.items():
        count = max(1, round(total_count * share / sum(shares.values())))
        outcomes = list(read_mutants(kind, seeds[:count], limit_s, until))
        failures += [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        counts = Counter(outcome if isinstance(outcome, str) else outcome.what for outcome in outcomes)
        print(_row(kind, counts), flush=True)
        total += counts
    print(_row("all", total))
    for failure in failures:
        print(f"\n{failure.what}: {failure.kind}, seed {failure.seed}\n{failure.reason}")


def _row(title: str, counts: Counter[str]) -> str:
    columns = (counts[name] for name in ("read", "refused", "crash", "hang", "raw error"))
    return f"| {title} | {counts.total()} | {' | '.join(map(str, columns))} |"


if __name__ == "__main__":
    main()
