"""The chart of the loss: all runs over each other, and where one leaves the first."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_precision.core.result import Measurement, Result
from keras_precision.report.charts.chart import Chart, axis, colour, label, marker_line
from keras_precision.report.downsampling import thinned
from keras_precision.report.values import series

__all__ = ["loss_chart", "parting"]

_APART = 0.1
_WINDOWS = 50  # in a run: each mean is over so many steps that the noise of single batches is gone

Series = tuple[Sequence[int], Sequence[float | None]]


def parting(baseline: Series, other: Series, apart: float = _APART) -> int | None:
    """Return the step from which on two curves stay apart, to the end.

    Args:
        baseline: Steps, and the figure at each, of the run that is compared with.
        other: Those of the other run.
        apart: The relative difference that counts; a figure that is not finite is apart from one that is.

    Returns:
        The first step of the last stretch in which ``|b - a| > apart * |a|`` throughout; None where the curves
        end together, or have no step in common.

    Example:
        >>> parting(([0, 1, 2, 3], [3.0, 2.0, 1.0, 0.5]), ([0, 1, 2, 3], [3.0, 2.1, 1.2, 0.9]))
        2
    """
    expected = dict(zip(*baseline, strict=True))
    found = None
    for step, value in zip(*other, strict=True):
        if step in expected:
            found = (step if found is None else found) if _differ(expected[step], value, apart) else None
    return found


def _differ(expected: float | None, value: float | None, apart: float) -> bool:
    if expected is None or value is None:
        return False
    if not (math.isfinite(expected) and math.isfinite(value)):
        return math.isfinite(expected) != math.isfinite(value)
    return abs(value - expected) > apart * abs(expected)


def loss_chart(results: Sequence[Result]) -> Chart | None:
    """Return the loss curves of all runs, with the step where each leaves the first.

    Args:
        results: Training runs; the first with a loss is the baseline.

    Returns:
        The chart, by steps where they were recorded, else by epochs; None where no run has a loss.

    Example:
        >>> loss_chart([Result("run")]) is None
        True
    """
    results = [_over_seeds(result) for result in results]
    subject = next((each for each in ("step", "epoch") if any(result.select("loss", each) for result in results)), None)
    if subject is None:
        return None
    curves = {index: series(result, "loss", subject) for index, result in enumerate(results)}
    shift = int(subject == "epoch")  # Keras's logs count epochs from 0, its progress bar and people from 1
    curves = {index: ([step + shift for step in steps], values) for index, (steps, values) in curves.items() if steps}
    window = max(1, max(len(steps) for steps, _ in curves.values()) // _WINDOWS) if subject == "step" else 1
    means = {index: (steps, _running_mean(values, window)) for index, (steps, values) in curves.items()}
    traces = [_curve(label(results[index].name), index, mean, subject) for index, mean in means.items()]
    traces += _validation(results) if subject == "epoch" else []
    marks, notes = _partings(results, means, subject)
    notes += [f"Each point is the mean of the last {window} steps."] if window > 1 else []
    notes += [text for index, found in curves.items() for text in _not_finite(results[index].name, found, subject)]
    positive = all(value is None or value > 0 for trace in traces for value in trace["y"])
    return Chart(
        key="loss",
        title="Loss curves",
        about="Training loss as full lines, validation loss dashed. Curves that lie on each other show that precision did no harm.",
        traces=tuple(traces),
        layout={
            "xaxis": axis(subject),
            "yaxis": axis("loss", type="log" if positive else "linear", minor={"showgrid": False}),
            "shapes": [line for line, _ in marks],
            "annotations": [note for _, note in marks],
        },
        height=360,
        notes=tuple(notes),
    )


def _over_seeds(result: Result) -> Result:
    """A result whose epochs are the means over its seeds, where it has several and no epochs of its own."""
    if result.select("loss", "epoch") or not any(row.subject.startswith("seed ") for row in result.select("loss")):
        return result
    rows = [
        Measurement("epoch", metric, float(np.mean(values)), step)
        for metric in ("loss", "val_loss")
        for step, values in sorted(_by_step(result, metric).items())
    ]
    return replace(result, measurements=tuple(rows))


def _by_step(result: Result, metric: str) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for row in result.select(metric):
        if row.subject.startswith("seed ") and row.step is not None and isinstance(row.value, int | float):
            found.setdefault(row.step, []).append(float(row.value))
    return found


def _running_mean(values: Sequence[float | None], window: int) -> list[float | None]:
    """Means over the last ``window`` values; one that is not finite makes those that hold it so."""
    data = np.array([math.nan if value is None else value for value in values], np.float64)
    if window == 1:
        return list(map(float, data))
    odd = ~np.isfinite(data)
    sums, counts = np.cumsum(np.where(odd, 0.0, data)), np.arange(1.0, len(data) + 1)
    strange = np.cumsum(odd)
    for total in (sums, counts, strange):
        total[window:] -= total[:-window].copy()
    return list(map(float, np.where(strange > 0, math.nan, sums / counts)))


def _partings(
    results: Sequence[Result], means: dict[int, tuple[list[int], list[float | None]]], subject: str
) -> tuple[list[Any], list[str]]:
    (first, baseline), *others = means.items()
    marks, notes = [], []
    for index, mean in others:
        at, name = parting(baseline, mean), results[index].name
        if at is not None:
            marks.append(marker_line(at, label(f"{name} leaves", 32), colour(index)))
            notes.append(
                f"{name} leaves {results[first].name} at {subject} {at}: from there to the end, the losses differ by more than {100 * _APART:.0f} %."
            )
    if others and not marks:
        notes.append(
            f"No run leaves {results[first].name}: at the end, all are within {100 * _APART:.0f} % of its loss."
        )
    return marks, notes


def _curve(name: str, index: int, points: Series, subject: str, dash: str = "solid") -> dict[str, Any]:
    steps, values = thinned(*points)
    return {
        "type": "scatter", "mode": "lines+markers" if len(steps) <= 60 else "lines", "name": name,
        "x": steps, "y": values, "line": {"color": colour(index), "dash": dash, "width": 2}, "marker": {"size": 5},
        "hovertemplate": f"{name}<br>{subject} %{{x}}: %{{y}}<extra></extra>",
    }  # fmt: skip


def _validation(results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    for index, result in enumerate(results):
        steps, values = series(result, "val_loss", "epoch")
        if steps:
            points = [step + 1 for step in steps], values
            yield _curve(f"{label(result.name)}, validation", index, points, "epoch", dash="dash")


def _not_finite(name: str, points: Series, subject: str) -> Iterator[str]:
    steps, values = points
    odd = [value is not None and not math.isfinite(value) for value in values]
    if any(odd):
        at = steps[odd.index(True)]
        after = "from there to the end" if all(odd[odd.index(True) :]) else "and finite again later"
        yield f"{name}: the loss is not finite at {subject} {at}, {after}."
