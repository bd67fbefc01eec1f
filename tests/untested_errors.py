"""``python tests/untested_errors.py``: each error that the package raises and no test has run, from coverage's data.

A statement that cannot be reached in a test has ``# pragma: no cover`` beside it, with the reason.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import coverage

ROOT = Path(__file__).resolve().parents[1]


def not_run(measured: coverage.Coverage, path: Path) -> Iterator[int]:
    """Yield the lines of the ``raise`` statements of a file that no process has run."""
    missing = set(measured.analysis2(str(path))[3])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and node.exc is not None and node.lineno in missing:
            yield node.lineno


def main() -> int:
    """List them; return the exit code."""
    measured = coverage.Coverage()
    measured.load()
    untested = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / "keras_precision").rglob("*.py"))
        for line in sorted(not_run(measured, path))
    ]
    if untested:
        print("No test runs these raise statements:", *untested, sep="\n")
    return 1 if untested else 0


if __name__ == "__main__":
    sys.exit(main())
