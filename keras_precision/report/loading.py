"""The inputs of a report: results and comparisons from values, files and folders."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_precision.comparison.comparison import Comparison
from keras_precision.core.errors import FileFormatError, InputError
from keras_precision.core.result import Result, saved_at

__all__ = ["ReportInputs", "Source", "collect_results"]

Source = Result | Comparison | str | os.PathLike[str]
"""A result, a comparison, a file of one, or a folder of such files."""


@dataclass(frozen=True)
class ReportInputs:
    """The inputs of a report.

    Attributes:
        results: All results, with distinct names, including those of comparisons.
        problems: Messages about files that could not be read.
        comparisons: The comparisons.
    """

    results: tuple[Result, ...]
    problems: tuple[str, ...] = ()
    comparisons: tuple[Comparison, ...] = ()

    def uncompared(self, results: Sequence[Result]) -> list[Result]:
        """Return the results that are in no comparison."""
        compared = {id(result) for comparison in self.comparisons for result in comparison.results}
        return [result for result in results if id(result) not in compared]

    def compared_on(self, results: Sequence[Result]) -> list[Comparison]:
        """Return the comparisons whose baseline is among the results of one machine."""
        baselines = {id(result) for result in results}
        return [comparison for comparison in self.comparisons if id(comparison.baseline) in baselines]


def collect_results(sources: Any) -> ReportInputs:
    """Collect results and comparisons from values, files, folders (read recursively), or a sequence of them.

    In a folder, float32 results come first, as the baseline, and a damaged file is only a problem. Results with the same
    name get the name of their file, or a number, appended.

    Example:
        >>> _ = Result("float32").save("one.json")
        >>> _ = Path("two.json").write_text('{"format": "keras_precision.res')
        >>> inputs = collect_results(".")
        >>> [result.name for result in inputs.results], len(inputs.problems)
        (['float32'], 1)
    """
    problems: list[str] = []
    loaded = list(_load_all(sources, problems))
    if not loaded:
        raise InputError("Expected at least one result. Received: none. Pass results, files or folders.")
    comparisons = tuple(value for value, _ in loaded if isinstance(value, Comparison))
    single = [(value, stem) for value, stem in loaded if isinstance(value, Result)]
    compared = [result for comparison in comparisons for result in comparison.results]
    return ReportInputs((*compared, *_with_distinct_names(single)), tuple(problems), comparisons)


def _load_all(sources: Any, problems: list[str]) -> Iterator[tuple[Result | Comparison, str]]:
    """Yield every result or comparison with the stem of its file."""
    if isinstance(sources, Result | Comparison):
        yield sources, ""
    elif isinstance(sources, str | os.PathLike):
        path = saved_at(sources, "a saved result or a folder of them")
        yield from _load_folder(path, problems) if path.is_dir() else [(_load(path), path.stem)]
    elif isinstance(sources, Iterable) and not isinstance(sources, bytes):
        for source in sources:
            yield from _load_all(source, problems)
    else:
        raise InputError(
            f"Expected results, files or folders. Received: {type(sources).__name__}. Pass a result, such as "
            "profiler.result, or the folder of saved results."
        )


def _load(path: Path) -> Result | Comparison:
    return Comparison.load(path) if b'"keras_precision.comparison"' in path.read_bytes()[:200] else Result.load(path)


def _load_folder(folder: Path, problems: list[str]) -> Iterator[tuple[Result | Comparison, str]]:
    loaded: list[tuple[Result | Comparison, str]] = []
    damaged = []
    finished = sorted(folder.rglob("*.json"))
    running = sorted(log for log in folder.rglob("*.json.partial") if not log.with_suffix("").exists())
    for path in (*finished, *running):
        try:
            if not _is_other_document(path.read_bytes()):
                loaded.append((_load(path), path.stem))
        except (FileFormatError, OSError) as error:
            damaged.append(str(error))
    if not loaded and damaged:
        more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        raise FileFormatError(
            f"Expected a folder with results. Received: '{folder}', where every file is damaged. {damaged[0]}{more}"
        )
    if not loaded:
        raise InputError(
            f"Expected a folder with results. Received: '{folder}', which has none. Save one with "
            f"result.save('{folder / 'run.json'}'), or PrecisionProfiler(path=...)."
        )
    problems += damaged
    yield from sorted(loaded, key=lambda pair: _is_float32(pair[0]), reverse=True)


def _is_other_document(content: bytes) -> bool:
    """Return whether a file is valid JSON of another kind than a result, such as a plan."""
    try:
        document = json.loads(content)
    except ValueError:
        return False
    kind = document.get("format") if isinstance(document, dict) else None
    return kind not in ("keras_precision.result", "keras_precision.result-log", "keras_precision.comparison")


def _is_float32(result: Result | Comparison) -> bool:
    """Return whether a result is of float32, by its plan or its name."""
    if isinstance(result, Comparison):
        return False
    plan = result.plan
    return result.name.endswith("float32") or (plan is not None and plan.default == "float32" and not plan.layers)


def _with_distinct_names(loaded: Sequence[tuple[Result, str]]) -> Iterator[Result]:
    """Rename results with the same name; a run and a file may share one, because they are in different tables."""
    kinds = ["run" if result.select("step_time_ms") else "file" for result, _ in loaded]
    counts = Counter((kind, result.name) for kind, (result, _) in zip(kinds, loaded, strict=True))
    seen: Counter[tuple[str, str]] = Counter()
    for kind, (result, stem) in zip(kinds, loaded, strict=True):
        name = result.name
        if counts[kind, name] > 1:
            name = f"{name} ({stem})" if stem and stem != name else name
            seen[kind, name] += 1
            name = f"{name} #{seen[kind, name]}" if seen[kind, name] > 1 else name
        yield result if name == result.name else replace(result, name=name)
