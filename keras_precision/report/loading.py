"""Gathered: the results that a report is made of, and what could not be read."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_precision.comparison.comparison import Comparison
from keras_precision.core.errors import FileFormatError, InputError
from keras_precision.core.result import Result
from keras_precision.core.system.files import check_exists

__all__ = ["Gathered", "Source", "gather"]

Source = Result | Comparison | str | os.PathLike[str]
"""A result, a comparison, a file that holds one, or a folder of such files."""


@dataclass(frozen=True)
class Gathered:
    """What a report is made of.

    Attributes:
        results: The results, each with a name of its own; those of comparisons among them.
        problems: What could not be read, and why.
        comparisons: The comparisons.
    """

    results: tuple[Result, ...]
    problems: tuple[str, ...] = ()
    comparisons: tuple[Comparison, ...] = ()

    def apart(self, results: Sequence[Result]) -> list[Result]:
        """Return those that no comparison shows already.

        Args:
            results: Some of the results.

        Returns:
            The ones that are in no comparison.
        """
        compared = {id(result) for comparison in self.comparisons for result in comparison.results}
        return [result for result in results if id(result) not in compared]

    def compared_on(self, results: Sequence[Result]) -> list[Comparison]:
        """Return the comparisons whose baseline is among some results.

        Args:
            results: The results of one machine.

        Returns:
            The comparisons.
        """
        here = {id(result) for result in results}
        return [comparison for comparison in self.comparisons if id(comparison.baseline) in here]


def gather(sources: Any) -> Gathered:
    """Collect results from wherever they are.

    Args:
        sources: A result, a comparison, a file, a folder (read with all folders below it), or a sequence of all
            these.

    Returns:
        The results. In a folder, those of float32 come first, as they are the baseline; a damaged file is a
        problem, and the others are still read. Of several results with one name, each gets the name of its
        file behind it, or a number.

    Raises:
        InputError: There is no result, or something else was passed.
        FileFormatError: A file that was named, or every file of a folder, is damaged.
        FileNotFoundError: There is no such file or folder.

    Example:
        >>> _ = Result("float32").save("one.json")
        >>> _ = Path("two.json").write_text('{"format": "keras_precision.res')
        >>> found = gather(".")
        >>> [result.name for result in found.results], len(found.problems)
        (['float32'], 1)
    """
    problems: list[str] = []
    found = list(_found(sources, problems))
    if not found:
        raise InputError("Expected at least one result. Received: none.")
    comparisons = tuple(each for each, _ in found if isinstance(each, Comparison))
    single = [(each, stem) for each, stem in found if isinstance(each, Result)]
    compared = [result for comparison in comparisons for result in comparison.results]
    return Gathered((*compared, *_told_apart(single)), tuple(problems), comparisons)


def _found(sources: Any, problems: list[str]) -> Iterator[tuple[Result | Comparison, str]]:
    """Each result or comparison, and where it was read."""
    if isinstance(sources, Result | Comparison):
        yield sources, ""
    elif isinstance(sources, str | os.PathLike):
        path = check_exists(sources, "a saved result or a folder of them")
        yield from _of_folder(path, problems) if path.is_dir() else [(_loaded(path), path.stem)]
    elif isinstance(sources, Iterable) and not isinstance(sources, bytes):
        for source in sources:
            yield from _found(source, problems)
    else:
        raise InputError(
            f"Expected results, files or folders. Received: {type(sources).__name__}. Pass what a verb returned, such as "
            "profiler.result, or the folder that results were saved to."
        )


def _loaded(path: Path) -> Result | Comparison:
    return Comparison.load(path) if b'"keras_precision.comparison"' in path.read_bytes()[:200] else Result.load(path)


def _of_folder(folder: Path, problems: list[str]) -> Iterator[tuple[Result | Comparison, str]]:
    found: list[tuple[Result | Comparison, str]] = []
    damaged = []
    for path in sorted(folder.rglob("*.json")):
        try:
            if not _of_another_kind(path.read_bytes()):
                found.append((_loaded(path), path.stem))
        except (FileFormatError, OSError) as error:
            damaged.append(str(error))
    if not found and damaged:
        more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        raise FileFormatError(
            f"Expected a folder with results. Received: '{folder}', where none is sound. {damaged[0]}{more}"
        )
    if not found:
        raise InputError(
            f"Expected a folder with results. Received: '{folder}', which holds none. Save one with "
            f"result.save('{folder / 'run.json'}'), or PrecisionProfiler(path=...)."
        )
    problems += damaged
    yield from sorted(found, key=lambda each: _is_wide(each[0]), reverse=True)


def _of_another_kind(content: bytes) -> bool:
    """Whether a file is sound, and something else than a result: a plan, say."""
    try:
        document = json.loads(content)
    except ValueError:
        return False
    kind = document.get("format") if isinstance(document, dict) else None
    return kind not in ("keras_precision.result", "keras_precision.result-log", "keras_precision.comparison")


def _is_wide(result: Result | Comparison) -> bool:
    """Whether a result is that of float32, by its plan or its name."""
    if isinstance(result, Comparison):
        return False
    plan = result.plan
    return result.name.endswith("float32") or (plan is not None and plan.default == "float32" and not plan.layers)


def _told_apart(found: Sequence[tuple[Result, str]]) -> Iterator[Result]:
    """A run and a file may share a name: they stand in different tables."""
    kinds = ["run" if result.select("step_time_ms") else "file" for result, _ in found]
    counts = Counter((kind, result.name) for kind, (result, _) in zip(kinds, found, strict=True))
    seen: Counter[tuple[str, str]] = Counter()
    for kind, (result, stem) in zip(kinds, found, strict=True):
        name = result.name
        if counts[kind, name] > 1:
            name = f"{name} ({stem})" if stem and stem != name else name
            seen[kind, name] += 1
            name = f"{name} #{seen[kind, name]}" if seen[kind, name] > 1 else name
        yield result if name == result.name else replace(result, name=name)
