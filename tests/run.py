"""``python tests/run.py``: the checks, then every test on every stack, each stack in a process of its own.

``python tests/run.py check`` runs the checks alone; ``python tests/run.py jax`` one stack alone; arguments
that begin with a dash go to pytest.
"""

import os
import subprocess
import sys
import time

STACKS = ("tensorflow", "jax", "torch", "tf_keras")
CHECKS = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",))


def run(title: str, *arguments: str, **variables: str) -> bool:
    """Run ``python -m arguments`` and tell whether it succeeded."""
    began = time.monotonic()
    print(f"== {title}", flush=True)
    done = subprocess.run([sys.executable, "-m", *arguments], env={**os.environ, **variables}, check=False)
    print(
        f"== {title}: {'passed' if done.returncode == 0 else 'FAILED'} in {time.monotonic() - began:.0f} s", flush=True
    )
    return done.returncode == 0


def main(arguments: list[str]) -> int:
    """Run what is asked for; return the exit code."""
    options = [argument for argument in arguments if argument.startswith("-")]
    chosen = [argument for argument in arguments if not argument.startswith("-")] or ["check", *STACKS]
    good = True
    if "check" in chosen:
        good = min(run(" ".join(check), *check) for check in CHECKS)
    for stack in STACKS:
        if stack in chosen:
            # The first stack runs every test; the others those that concern a stack.
            only = [] if stack == STACKS[0] else ["-m", "every_stack", "tests"]
            good = run(f"tests on {stack}", "pytest", *only, *options, KERAS_PRECISION_STACK=stack) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
