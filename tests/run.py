"""``python tests/run.py``: the checks, then every test on every stack with coverage, each stack in processes of its own.

``python tests/run.py check`` runs the checks alone; ``python tests/run.py jax`` one stack alone, without coverage;
arguments that begin with a dash go to pytest. Two processes run side by side; each shows what it printed when it ends.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CHECKS = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",), ("vulture",))
SIDE_BY_SIDE = 2

# The first stack runs every test, the others those that concern a stack. It has three processes, so that no processor
# waits for the last one: the slow tests, those of files, and all others.
FIRST, *OTHERS = STACKS = ("tensorflow", "jax", "torch", "tf_keras")
FILES = tuple(f"tests/{name}" for name in ("export", "quantization", "qat", "search"))

# Tracing makes tests take half as long again. On the other stacks it measures those in which their adapters do the work.
ADAPTED = tuple(
    f"tests/{name}" for name in ("adapters", "callbacks", "diagnosis", "test_apply_plan.py", "test_policy.py")
)


class Job(NamedTuple):
    """``python -m arguments``, with environment variables of its own; whether coverage is measured in it."""

    title: str
    arguments: Sequence[str]
    variables: dict[str, str]
    is_measured: bool = False


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


def jobs(chosen: Sequence[str], options: Sequence[str]) -> Iterator[Job]:
    """Yield the jobs of the stacks that are chosen, the longest first.

    The slow tests are not measured: tracing would make them slower still, and what they alone reach needs a quicker test.
    """
    variables = {"KERAS_PRECISION_STACK": FIRST}
    if FIRST in chosen:
        yield Job(f"slow tests on {FIRST}", ("pytest", "-m", "slow", *options), variables)
        rest = ("pytest", "-m", "not slow", *_ignored(FILES), *options)
        yield Job(f"other tests on {FIRST}", rest, variables, True)
        yield Job(f"tests of files on {FIRST}", ("pytest", "-m", "not slow", *FILES, *options), variables, True)
    others = [stack for stack in OTHERS if stack in chosen]
    for stack in others:
        rest = ("pytest", "-m", "every_stack", "tests", *_ignored(ADAPTED), *options)
        yield Job(f"other tests on {stack}", rest, {"KERAS_PRECISION_STACK": stack})
    for stack in others:
        arguments = ("pytest", "-m", "every_stack", *ADAPTED, *options)
        yield Job(f"tests of the adapters on {stack}", arguments, {"KERAS_PRECISION_STACK": stack}, True)


def _ignored(paths: Sequence[str]) -> list[str]:
    return [f"--ignore={path}" for path in paths]


# What is asked of the coverage of all processes, one after the other.
GATES = (
    ("coverage of all processes", ("coverage", "combine", "--quiet")),
    ("no less coverage than in setup.cfg", ("coverage", "report", "--skip-covered")),
    ("every raised message has a test", ("tests.untested_errors",)),
)


def test(chosen: Sequence[str], options: Sequence[str], scratch: Path) -> bool:
    """Run the tests of the stacks that are chosen; of all of them with coverage, which must suffice."""
    folders = {name: scratch / name for name in ("compiled", "coverage")}
    for folder in folders.values():
        folder.mkdir()
    shared = {  # what JAX compiles for one test serves the others
        "JAX_COMPILATION_CACHE_DIR": str(folders["compiled"]),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    coverage = {"COVERAGE_RCFILE": str(ROOT / "setup.cfg"), "COVERAGE_FILE": str(folders["coverage"] / "data")}
    is_gated = set(chosen) >= set(STACKS)

    def prepared(job: Job) -> Job:
        if not (is_gated and job.is_measured):
            return job._replace(variables=shared | job.variables)
        arguments = ("coverage", "run", "-m", *job.arguments)
        return job._replace(arguments=arguments, variables=shared | job.variables | coverage)

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        passed = list(pool.map(lambda job: run(prepared(job)), jobs(chosen, options)))
    if is_gated:
        passed += [run(Job(title, arguments, coverage)) for title, arguments in GATES]
    return all(passed)


def main(arguments: list[str]) -> int:
    """Run what is asked for; return the exit code."""
    options = [argument for argument in arguments if argument.startswith("-")]
    chosen = [argument for argument in arguments if not argument.startswith("-")] or ["check", *STACKS]
    checked = [run(Job(" ".join(check), check, {})) for check in CHECKS] if "check" in chosen else []
    with tempfile.TemporaryDirectory() as scratch:
        return 0 if test(chosen, options, Path(scratch)) and all(checked) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
