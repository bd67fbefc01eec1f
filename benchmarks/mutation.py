"""What tests miss: a module is changed in one place at a time, and a change that its tests do not see survives.

    python benchmarks/mutation.py keras_precision/comparison/intervals.py tests/test_intervals.py
    python benchmarks/mutation.py keras_precision/comparison/intervals.py tests/test_intervals.py --lines 120-150

Everything happens in a copy of the repository in a temporary folder. Each mutant has a process of its own, forked after
NumPy, SciPy and the Keras of KERAS_PRECISION_STACK were imported (Linux, macOS); one that does not end within ``--limit``
seconds counts as killed. Printed are the survivors, each with its line and what was changed, and the number killed of all.
Texts, annotations, decorators and what is raised are not changed: messages have tests of their own.
"""

import argparse
import ast
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).parents[1]
OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.MatMult: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
UNCHANGED = ("annotation", "returns", "decorator_list")


class Mutant(NamedTuple):
    """A changed module: the line, what was there, what is there now, and the whole source."""

    line: int
    before: str
    after: str
    source: str


class Place(NamedTuple):
    """Where a node of a syntax tree is held: a field of another node, or an item of a list in that field."""

    line: int
    parent: ast.AST
    field: str
    index: int | None

    def put(self, node: ast.AST) -> None:
        """Put a node in this place."""
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def mutants(source: str, lines: range | None = None) -> Iterator[Mutant]:
    """Yield every changed module in the order of the lines; with ``lines``, only changes of those."""
    tree = ast.parse(source)
    whole = ast.unparse(tree).splitlines()
    for place, node in _places(tree, 1):
        if lines is not None and place.line not in lines:
            continue
        for replacement in _replacements(node):
            place.put(replacement)
            changed = ast.unparse(tree).splitlines()
            place.put(node)
            before, after = next(pair for pair in zip(whole, changed, strict=False) if pair[0] != pair[1])
            yield Mutant(place.line, before.strip(), after.strip(), "\n".join(changed) + "\n")


def _places(parent: ast.AST, line: int) -> Iterator[tuple[Place, ast.AST]]:
    """Yield every node that may be changed, with its place."""
    for field, value in ast.iter_fields(parent):
        if field in UNCHANGED:
            continue
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(node, ast.AST) and not isinstance(node, (ast.Raise, ast.JoinedStr)):
                start = getattr(node, "lineno", line)
                yield Place(start, parent, field, index), node
                yield from _places(node, start)


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in the place of ``node``."""
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.UnaryOp(operand=operand):  # -x, not x, ~x
            yield operand
        case ast.Name(id=name, ctx=ast.Load()) if name in NAMES:
            yield ast.Name(NAMES[name], ast.Load())
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.If(test=test, body=body, orelse=orelse) if not isinstance(test, (ast.Compare, ast.UnaryOp)):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.Return(value=ast.Constant(value=None) | None):
            return
        case ast.Return():
            yield ast.Return(ast.Constant(None))
        case _ if type(node) in OPERATORS:
            yield OPERATORS[type(node)]()


class Trial:
    """The tests of one module, run in a copy of the repository.

    Attributes:
        limit: Seconds that a process may take.
    """

    def __init__(self, repository: Path, module: Path, tests: list[str]) -> None:
        self.repository, self.module, self.tests = repository, repository / module, tests
        self.limit = 3600.0

    def passes(self, source: str, *, quiet: bool = True) -> bool:
        """Whether the tests pass with ``source`` as the module, within the limit."""
        self.module.write_text(source, encoding="utf-8")
        for compiled in self.module.parent.glob(f"__pycache__/{self.module.stem}.*"):
            compiled.unlink()  # two mutants of one size, written within a second, look the same to the cache
        process = os.fork()
        if process == 0:
            self._test(quiet)
        return self._status(process) == 0

    def _test(self, quiet: bool) -> NoReturn:
        """Run pytest, and end the process."""
        try:
            os.setpgid(0, 0)
            os.chdir(self.repository)
            sys.path[0] = str(self.repository)
            os.environ["PYTHONPATH"] = str(self.repository)
            if quiet:
                sink = os.open(os.devnull, os.O_WRONLY)
                for stream in (1, 2):
                    os.dup2(sink, stream)
            import pytest

            os._exit(int(pytest.main(["-x", "-p", "no:cacheprovider", *self.tests])))
        finally:
            os._exit(70)

    def _status(self, process: int) -> int | None:
        """Return how the process ended; kill it, and return None, where it does not end in time."""
        end = time.monotonic() + self.limit
        while time.monotonic() < end:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return None


def import_frameworks() -> None:
    """Import once what takes seconds. The package is none of it: each process imports it anew."""
    stack = os.environ.setdefault("KERAS_PRECISION_STACK", "tensorflow")
    os.environ["KERAS_BACKEND"] = "tensorflow" if stack == "tf_keras" else stack
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("pytest", "scipy.stats", "tensorflow", "keras", *(["tf_keras"] if stack == "tf_keras" else [])):
        importlib.import_module(name)


def line_range(text: str) -> range:
    """Return the lines that ``--lines`` names."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> None:
    """Run every mutant, and print those that survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", type=Path, help="the module to change, from the root of the repository")
    parser.add_argument("tests", nargs="+", help="what pytest runs: files, or tests by their node ids")
    parser.add_argument("--lines", type=line_range, help="change these lines alone, such as 120-150")
    parser.add_argument("--limit", type=float, help="seconds of a mutant; by default three times the first run, and 10")
    options = parser.parse_args()
    import_frameworks()
    source = (ROOT / options.module).read_text(encoding="utf-8")
    total = survivors = 0
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        repository = Path(folder) / "repository"
        shutil.copytree(ROOT, repository, ignore=shutil.ignore_patterns(".*", "site", "__pycache__"))
        trial, began = Trial(repository, options.module, options.tests), time.monotonic()
        if not trial.passes(source, quiet=False):
            sys.exit("The tests do not pass on the module as it is.")
        trial.limit = options.limit or 3 * (time.monotonic() - began) + 10
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        for mutant in mutants(source, options.lines):
            total += 1
            if trial.passes(mutant.source):
                survivors += 1
                print(f"{options.module}:{mutant.line}: {mutant.before}  ->  {mutant.after}", flush=True)
    print(f"{options.module}: {total - survivors} of {total} killed")


if __name__ == "__main__":
    main()
