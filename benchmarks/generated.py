"""Generated models in bulk: ``python benchmarks/generated.py --models 2000``.

Each model is built from a description that Hypothesis draws from the grammar in ``tests/generated/grammar.py``, and every
invariant of ``tests/generated/invariants`` is checked in a child process. A row per model is appended to a file, so that a
run that was stopped goes on where it was. The first failures of every invariant are shrunk to a minimal model, which is
kept under ``open/`` beside that file. ``--keep`` moves those that hold by now into the fixed cases of the test suite, and adds
models that break nothing, until every stack has its number of them.
Prints a table by invariant, and one of the open failures.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # before this folder, whose module has the package's name

from generated.description import CASES, Description, identity, load, save, stored
from generated.grammar import first_descriptions
from generated.invariants import INVARIANTS, checks_on
from generated.shrink import shrunk
from generated.worker import PROCESS, Worker

STACKS = ("tensorflow", "tensorflow", "tensorflow", "tf_keras", "jax", "torch")
"""The stack of a model, by its number."""

PER_STRETCH = 20
FIXED = {"tensorflow": 30, "tf_keras": 10, "jax": 10, "torch": 10}
"""The number of fixed cases of each stack."""

SHRUNK_PER_INVARIANT = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other models")
    parser.add_argument("--results", type=Path, default=Path("results/generated"))
    parser.add_argument("--again", action="store_true", help="check again what failed before")
    parser.add_argument("--no-shrink", dest="shrink", action="store_false")
    parser.add_argument("--keep", action="store_true", help="make fixed cases of what holds")
    parsed = parser.parse_args(arguments)
    parsed.results.mkdir(parents=True, exist_ok=True)
    path = parsed.results / f"models-{parsed.seed}.jsonl"
    rows = list(_checked(path, _planned(parsed.models, parsed.seed), again=parsed.again))
    if parsed.shrink:
        _shrink(rows, parsed.results / "open")
    if parsed.keep:
        _keep(parsed.results / "open")
        _complete(rows)
    print(_table(rows))
    print(_open_failures(parsed.results / "open"))


def _planned(count: int, seed: int) -> list[tuple[str, Description]]:
    """Return the models by stack, those of one stack together, in stretches that a stopped run can end after."""
    drawn = first_descriptions(count, seed)
    stretches = [drawn[start : start + PER_STRETCH] for start in range(0, len(drawn), PER_STRETCH)]
    return [
        (stack, description)
        for number, stretch in enumerate(stretches)
        for stack in (STACKS[number % len(STACKS)],)
        for description in stretch
    ]


def _checked(path: Path, planned: Sequence[tuple[str, Description]], *, again: bool) -> Iterator[dict[str, Any]]:
    """Yield a row per model, old or new; new ones are appended to the file as they come."""
    known = {(row["stack"], row["id"]): row for row in _rows(path)}
    worker = None
    try:
        for stack, description in planned:
            row = known.get((stack, identity(description)))
            if row is None or (again and _broken(row)):
                worker = _worker(worker, stack)
                answer = worker.check(description, checks_on(stack))
                row = {"id": identity(description), "stack": stack, "description": description, **answer}
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            yield row
    finally:
        if worker is not None:
            worker.stop()


def _worker(worker: Worker | None, stack: str) -> Worker:
    if worker is not None and worker.stack == stack:
        return worker
    if worker is not None:
        worker.stop()
    return Worker(stack)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _broken(row: dict[str, Any]) -> list[str]:
    """Return the invariants that a row breaks."""
    return [name for name, verdict in row.get("verdicts", {}).items() if verdict["verdict"] == "violated"]


def _shrink(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Keep a minimal model of the first failures of every invariant."""
    folder.mkdir(exist_ok=True)
    seen: Counter[str] = Counter()
    for row in rows:
        for name in _broken(row):
            path = folder / f"{row['stack']}-{row['id']}-{_position(name)}.json"
            seen[name] += 1
            if seen[name] <= SHRUNK_PER_INVARIANT and not path.exists():
                with Worker(row["stack"]) as worker:
                    save(path, _minimal(worker, row, name))


def _position(name: str) -> int:
    """Return the number of an invariant, for names of files."""
    return [*INVARIANTS, PROCESS].index(name)


def _minimal(worker: Worker, row: dict[str, Any], name: str) -> dict[str, Any]:
    checks = checks_on(row["stack"]) if name == PROCESS or name.startswith("every refusal") else (name,)

    def fails(description: Description) -> bool:
        verdicts = worker.check(description, checks).get("verdicts", {})
        return bool(verdicts.get(name, {}).get("verdict") == "violated")

    description = shrunk(row["description"], fails) if fails(row["description"]) else row["description"]
    return {
        "stack": row["stack"],
        "breaks": name,
        "reason": row["verdicts"][name]["reason"],
        "description": description,
    }


def _keep(folder: Path) -> None:
    """Move open failures that hold by now to the fixed cases."""
    for path in sorted(folder.glob("*.json")):
        case = load(path)
        with Worker(case["stack"]) as worker:
            answer = worker.check(case["description"], checks_on(case["stack"]))
        if "verdicts" in answer and not _broken(answer):
            _save(case["stack"], case["description"])
            path.unlink()


def _complete(rows: Sequence[dict[str, Any]]) -> None:
    """Add models of which nothing is refused and nothing broken to the fixed cases, up to the number of their stack."""
    for row in rows:
        verdicts = [verdict["verdict"] for verdict in row.get("verdicts", {}).values()]
        if verdicts and not {"violated", "refused"} & {*verdicts} and len(stored(row["stack"])) < FIXED[row["stack"]]:
            _save(row["stack"], row["description"])


def _save(stack: str, description: Description) -> None:
    save(CASES / f"{stack}_{identity(description)}.json", {"stack": stack, "description": description})


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the verdicts by invariant, as a Markdown table."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for name, verdict in row.get("verdicts", {}).items():
            counts[name][verdict["verdict"]] += 1
    verdicts = ("holds", "violated", "refused", "skipped")
    invalid = sum("invalid" in row for row in rows)
    lines = [
        f"### {len(rows)} models, {invalid} of which Keras itself refuses",
        "",
        f"| invariant | {' | '.join(verdicts)} |",
    ]
    lines.append("| :-- | --: | --: | --: | --: |")
    lines += [
        f"| {name} | {' | '.join(str(counts[name][verdict]) for verdict in verdicts)} |"
        for name in [*INVARIANTS, PROCESS]
    ]
    return "\n".join(lines)


def _open_failures(folder: Path) -> str:
    """Return the minimal models that still fail, as a Markdown table."""
    lines = ["", "### Open failures", "", "| invariant | stack | layers | reason |", "| :-- | :-- | :-- | :-- |"]
    for path in sorted(folder.glob("*.json")):
        case = load(path)
        layers = ", ".join(node["layer"] for node in case["description"]["nodes"])
        reason = case["reason"].splitlines()[0][:160].replace("|", "\\|")
        lines.append(f"| {case['breaks']} | {case['stack']} | {layers} | {reason} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
