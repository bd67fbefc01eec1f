"""The overview at the top of a report."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from keras_precision.comparison.comparison import Comparison
from keras_precision.comparison.recommendation import speedup
from keras_precision.core.result import Result
from keras_precision.findings.finding import Finding
from keras_precision.report.tables.runs import UNKNOWN, format_value
from keras_precision.report.values import number_or_none

__all__ = ["Overview", "Tile", "overview"]

_MAX_NAMES = 4


@dataclass(frozen=True)
class Tile:
    """One number in large type, and its meaning."""

    figure: str
    meaning: str


@dataclass(frozen=True)
class Overview:
    """The overview: sentences with the recommendation or observations, and a few tiles."""

    sentences: tuple[str, ...]
    tiles: tuple[Tile, ...]


def overview(
    results: Sequence[Result], findings: Sequence[Finding] = (), comparisons: Sequence[Comparison] = ()
) -> Overview:
    """Summarize results of one machine: what comparisons recommend, and what single runs show without a recommendation.

    ``results`` are in no comparison; the first training run, and the first exported model, are the baselines.

    Example:
        >>> overview([Result("run")]).sentences
        ('1 result.',)
    """
    runs = [result for result in results if number_or_none(result, "step_time_ms")]
    files = [
        result for result in results if number_or_none(result, "size_bytes") or number_or_none(result, "latency_ms")
    ]
    recommended = [f"Recommended: {comparison.recommended}: {comparison.reason}" for comparison in comparisons]
    sentences = [
        *recommended,
        *_finding_sentences(findings),
        *_run_sentences(runs),
        *_file_sentences([file for file in files if file not in runs]),
        *(sentence for result in results for sentence in _drop_sentences(result)),
    ]
    tiles = [
        *(tile for comparison in comparisons for tile in _comparison_tiles(comparison)),
        *_tiles(runs, "step_time_ms", "peak_memory_mb"),
        *_tiles(files, "latency_ms", "size_bytes"),
        *_agreement_tiles(files),
    ]
    worst = [finding for finding in findings if finding.severity == "error"]
    tiles += [Tile(str(len(worst)), f"error{'s' if len(worst) > 1 else ''}")] if worst else []
    count = f"{len(results)} result{'s' if len(results) > 1 else ''}."
    return Overview(tuple(sentences) or (count,), tuple(tiles))


def _comparison_tiles(comparison: Comparison) -> Iterator[Tile]:
    speed = speedup(comparison, comparison.recommended)
    if comparison.recommended != comparison.baseline.name and speed is not None:
        spread = f"({speed.low:.2f} to {speed.high:.2f})"
        meaning = f"speed of {comparison.recommended} against {comparison.baseline.name} {spread}"
        yield Tile(f"{speed.estimate:.2f}x", meaning)


def _finding_sentences(findings: Sequence[Finding]) -> Iterator[str]:
    worst = [finding for finding in findings if finding.severity == "error"]
    if worst:
        names = list(dict.fromkeys(finding.subject.partition(": ")[0] for finding in worst))
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        yield f"Look at the findings: {', '.join(names[:_MAX_NAMES])}{more} cannot be trusted."


def _run_sentences(runs: Sequence[Result]) -> Iterator[str]:
    if len(runs) < 2:
        return
    fastest = min(runs, key=lambda result: number_or_none(result, "step_time_ms") or math.inf)
    first = runs[0]
    if fastest is first:
        yield f"No run had shorter steps than {first.name} ({format_value('step_time_ms', number_or_none(first, 'step_time_ms'))})."
    else:
        times = _ratio(first, fastest, "step_time_ms")
        yield f"{fastest.name} had the shortest steps: {times:.2f}x as fast as {first.name}{_quality(first, fastest)}."
    yield "These are single runs: kp.compare_training shows which differences are significant."


def _quality(first: Result, other: Result) -> str:
    for metric in ("val_accuracy", "val_loss", "loss"):
        before, after = number_or_none(first, metric), number_or_none(other, metric)
        if before is not None and after is not None:
            return f", with a {metric} of {format_value(metric, after)} against {format_value(metric, before)}"
    return ""


def _file_sentences(files: Sequence[Result]) -> Iterator[str]:
    sized = [result for result in files if number_or_none(result, "size_bytes")]
    if len(sized) < 2:
        return
    first, smallest = sized[0], min(sized, key=lambda result: number_or_none(result, "size_bytes") or math.inf)
    if smallest is first:
        yield f"No file is smaller than {first.name} ({format_value('size_bytes', number_or_none(first, 'size_bytes'))})."
        return
    parts = [f"{smallest.name} is the smallest file, {_percent(first, smallest, 'size_bytes')} of {first.name}"]
    speed = _ratio(first, smallest, "latency_ms")
    parts += [f"{speed:.2f}x as fast"] if speed else []
    for metric, words in (
        ("agreement", "has the model's prediction for {} of the samples"),
        ("accuracy", "has an accuracy of {}"),
    ):
        value = number_or_none(smallest, metric)
        parts += [words.format(format_value(metric, value))] if value is not None else []
    yield ", ".join(parts) + "."


def _drop_sentences(result: Result) -> Iterator[str]:
    """Summarize an explanation: the number of changed predictions, and the most sensitive layer."""
    changed, samples, lost, recovered = (
        next((row.value for row in result.select(metric, "all")), None)
        for metric in ("changed_samples", "samples", "lost_samples", "won_samples")
    )
    if changed is None:
        return
    yield f"{result.name}: {changed} of {samples} predictions changed" + (
        f"; {lost} were correct and are wrong now, {recovered} the other way round." if lost is not None else "."
    )
    layer = next((row.subject for row in result.select("changed_kept_alone")), None)
    if layer is not None:
        yield f"The most sensitive layer is {layer}."


def _tiles(results: Sequence[Result], time: str, amount: str) -> Iterator[Tile]:
    if len(results) < 2:
        return
    first, unit = results[0], {"step_time_ms": "training step", "latency_ms": "call"}[time]
    faster = max(results[1:], key=lambda result: _ratio(first, result, time) or 0.0)
    if ratio := _ratio(first, faster, time):
        yield Tile(f"{ratio:.2f}x", f"speed of a {unit}: {faster.name} against {first.name}")
    sources = {result.environment.sources.get(amount) for result in results if number_or_none(result, amount)}
    smaller = max(results[1:], key=lambda result: _ratio(first, result, amount) or 0.0)
    if _ratio(first, smaller, amount) and len(sources) == 1:
        quantity = {"peak_memory_mb": "peak memory", "size_bytes": "file size"}[amount]
        yield Tile(_percent(first, smaller, amount), f"{quantity}: {smaller.name} against {first.name}")


def _agreement_tiles(files: Sequence[Result]) -> Iterator[Tile]:
    known = [result for result in files if number_or_none(result, "agreement") is not None]
    if known:
        worst = min(known, key=lambda result: number_or_none(result, "agreement") or 0.0)
        yield Tile(
            format_value("agreement", number_or_none(worst, "agreement")),
            f"agreement with the model: {worst.name}, the lowest of all files",
        )


def _percent(first: Result, other: Result, metric: str) -> str:
    ratio = _ratio(first, other, metric)
    return f"{100 / ratio:.0f} %" if ratio else UNKNOWN


def _ratio(first: Result, other: Result, metric: str) -> float | None:
    before, after = number_or_none(first, metric), number_or_none(other, metric)
    return before / after if before and after and math.isfinite(before / after) else None
