"""Overview: what a report says first."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from keras_precision.comparison.comparison import Comparison
from keras_precision.comparison.recommendation import speedup
from keras_precision.core.result import Result
from keras_precision.findings.finding import Finding
from keras_precision.report.tables.runs import UNKNOWN, formatted
from keras_precision.report.values import figure

__all__ = ["Overview", "Tile", "overview"]

_MOST = 4  # runs that are named


@dataclass(frozen=True)
class Tile:
    """One figure in large letters.

    Attributes:
        figure: The figure.
        meaning: What it is.
    """

    figure: str
    meaning: str


@dataclass(frozen=True)
class Overview:
    """What a report says first.

    Attributes:
        sentences: The recommendation, or what was seen where the data allow none.
        tiles: A few figures.
    """

    sentences: tuple[str, ...]
    tiles: tuple[Tile, ...]


def overview(
    results: Sequence[Result], findings: Sequence[Finding] = (), comparisons: Sequence[Comparison] = ()
) -> Overview:
    """Say what results of one machine come to.

    Args:
        results: Results that were not compared; the first training run, and the first model to deploy, are the baselines.
        findings: What rules concluded.
        comparisons: What was compared.

    Returns:
        What comparisons recommend, else sentences that claim no more than single runs can show; and tiles.

    Example:
        >>> overview([Result("run")]).sentences
        ('1 result.',)
    """
    runs = [result for result in results if figure(result, "step_time_ms")]
    files = [result for result in results if figure(result, "size_bytes") or figure(result, "latency_ms")]
    recommended = [f"Recommended: {each.recommended}: {each.reason}" for each in comparisons]
    sentences = [
        *recommended,
        *_of_findings(findings),
        *_of_runs(runs),
        *_of_files([each for each in files if each not in runs]),
        *(sentence for result in results for sentence in _of_drop(result)),
    ]
    tiles = [
        *(tile for comparison in comparisons for tile in _of_comparison(comparison)),
        *_tiles(runs, "step_time_ms", "peak_memory_mb"),
        *_tiles(files, "latency_ms", "size_bytes"),
        *_worst_agreement(files),
    ]
    worst = [finding for finding in findings if finding.severity == "error"]
    tiles += [Tile(str(len(worst)), f"error{'s' if len(worst) > 1 else ''} found")] if worst else []
    count = f"{len(results)} result{'s' if len(results) > 1 else ''}."
    return Overview(tuple(sentences) or (count,), tuple(tiles))


def _of_comparison(comparison: Comparison) -> Iterator[Tile]:
    speed = speedup(comparison, comparison.recommended)
    if comparison.recommended != comparison.baseline.name and speed is not None:
        words = f"speed of {comparison.recommended} against {comparison.baseline.name} ({speed.low:.2f} to {speed.high:.2f})"
        yield Tile(f"{speed.estimate:.2f}x", words)


def _of_findings(findings: Sequence[Finding]) -> Iterator[str]:
    worst = [finding for finding in findings if finding.severity == "error"]
    if worst:
        names = list(dict.fromkeys(finding.subject.partition(": ")[0] for finding in worst))
        more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
        yield f"Look at the findings: {', '.join(names[:_MOST])}{more} cannot be trusted."


def _of_runs(runs: Sequence[Result]) -> Iterator[str]:
    if len(runs) < 2:
        return
    fastest = min(runs, key=lambda result: figure(result, "step_time_ms") or math.inf)
    first = runs[0]
    if fastest is first:
        yield f"No run had shorter steps than {first.name} ({formatted('step_time_ms', figure(first, 'step_time_ms'))})."
    else:
        times = _ratio(first, fastest, "step_time_ms")
        yield f"{fastest.name} had the shortest steps: {times:.2f}x as fast as {first.name}{_worth(first, fastest)}."
    yield "These are single runs: kp.compare_training tells which differences are real."


def _worth(first: Result, other: Result) -> str:
    for metric in ("val_accuracy", "val_loss", "loss"):
        before, after = figure(first, metric), figure(other, metric)
        if before is not None and after is not None:
            return f", with a {metric} of {formatted(metric, after)} against {formatted(metric, before)}"
    return ""


def _of_files(files: Sequence[Result]) -> Iterator[str]:
    sized = [result for result in files if figure(result, "size_bytes")]
    if len(sized) < 2:
        return
    first, smallest = sized[0], min(sized, key=lambda result: figure(result, "size_bytes") or math.inf)
    if smallest is first:
        yield f"No file is smaller than {first.name} ({formatted('size_bytes', figure(first, 'size_bytes'))})."
        return
    parts = [f"{smallest.name} is the smallest file, {_percent(first, smallest, 'size_bytes')} of {first.name}"]
    speed = _ratio(first, smallest, "latency_ms")
    parts += [f"{speed:.2f}x as fast"] if speed else []
    for metric, words in (
        ("agreement", "gives the model's answer for {} of the samples"),
        ("accuracy", "has an accuracy of {}"),
    ):
        value = figure(smallest, metric)
        parts += [words.format(formatted(metric, value))] if value is not None else []
    yield ", ".join(parts) + "."


def _of_drop(result: Result) -> Iterator[str]:
    """What an explanation comes to: how many answers changed, and which layer is to blame."""
    changed, samples, lost, won = (
        next((row.value for row in result.select(metric, "all")), None)
        for metric in ("changed_samples", "samples", "lost_samples", "won_samples")
    )
    if changed is None:
        return
    yield f"{result.name}: {changed} of {samples} answers changed" + (
        f"; {lost} were right and are wrong now, {won} the other way round." if lost is not None else "."
    )
    blamed = next((row.subject for row in result.select("changed_kept_alone")), None)
    if blamed is not None:
        yield f"The layer to blame first is {blamed}."


def _tiles(results: Sequence[Result], time: str, amount: str) -> Iterator[Tile]:
    if len(results) < 2:
        return
    first, what = results[0], {"step_time_ms": "training step", "latency_ms": "call"}[time]
    faster = max(results[1:], key=lambda result: _ratio(first, result, time) or 0.0)
    if ratio := _ratio(first, faster, time):
        yield Tile(f"{ratio:.2f}x", f"speed of a {what}: {faster.name} against {first.name}")
    sources = {result.environment.sources.get(amount) for result in results if figure(result, amount)}
    smaller = max(results[1:], key=lambda result: _ratio(first, result, amount) or 0.0)
    if _ratio(first, smaller, amount) and len(sources) == 1:
        words = {"peak_memory_mb": "peak memory", "size_bytes": "file size"}[amount]
        yield Tile(_percent(first, smaller, amount), f"{words}: {smaller.name} against {first.name}")


def _worst_agreement(files: Sequence[Result]) -> Iterator[Tile]:
    known = [result for result in files if figure(result, "agreement") is not None]
    if known:
        worst = min(known, key=lambda result: figure(result, "agreement") or 0.0)
        yield Tile(
            formatted("agreement", figure(worst, "agreement")),
            f"answers as the model: {worst.name}, the least of all files",
        )


def _percent(first: Result, other: Result, metric: str) -> str:
    ratio = _ratio(first, other, metric)
    return f"{100 / ratio:.0f} %" if ratio else UNKNOWN


def _ratio(first: Result, other: Result, metric: str) -> float | None:
    before, after = figure(first, metric), figure(other, metric)
    return before / after if before and after and math.isfinite(before / after) else None
