"""``python tests/run.py``: the checks, then every test on every stack, each stack in processes of its own.

``python tests/run.py check`` runs the checks alone; ``python tests/run.py jax`` one stack alone; arguments
that begin with a dash go to pytest. Two processes run side by side; each shows what it printed when it ends.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

STACKS = ("tensorflow", "jax", "torch", "tf_keras")
CHECKS = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",), ("vulture",))
SIDE_BY_SIDE = 2


class Job(NamedTuple):
    """``python -m arguments``, with environment variables of its own."""

    title: str
    arguments: Sequence[str]
    variables: dict[str, str]


def run(job: Job) -> bool:
    """Run a job, show what it printed, and tell whether it succeeded."""
    began = time.monotonic()
    print(f"== {job.title}", flush=True)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        command = [sys.executable, "-m", *job.arguments]
        done = subprocess.run(
            command, env={**os.environ, **job.variables}, stdout=output, stderr=subprocess.STDOUT, check=False
        )
        output.seek(0)
        verdict = "passed" if done.returncode == 0 else f"FAILED (exit code {done.returncode})"
        print(f"{output.read()}== {job.title}: {verdict} in {time.monotonic() - began:.0f} s", flush=True)
    return done.returncode == 0


def jobs(chosen: Sequence[str], options: Sequence[str], cache: str) -> Iterator[Job]:
    """Yield the jobs of the stacks that are chosen, the longest first; what JAX compiles for one test serves the others."""
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    for stack in STACKS:
        if stack not in chosen:
            continue
        variables = {"KERAS_PRECISION_STACK": stack, **compiled}
        if stack == STACKS[0]:  # runs every test; the others those that concern a stack
            for mark in ("not slow", "slow"):
                yield Job(f"tests on {stack}, {mark}", ("pytest", "-m", mark, *options), variables)
        else:
            yield Job(f"tests on {stack}", ("pytest", "-m", "every_stack", "tests", *options), variables)


def main(arguments: list[str]) -> int:
    """Run what is asked for; return the exit code."""
    options = [argument for argument in arguments if argument.startswith("-")]
    chosen = [argument for argument in arguments if not argument.startswith("-")] or ["check", *STACKS]
    checked = [run(Job(" ".join(check), check, {})) for check in CHECKS] if "check" in chosen else []
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        tested = list(pool.map(run, jobs(chosen, options, cache)))
    return 0 if all(checked + tested) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
