"""The chart of loss curves, and the step at which a run diverges from the baseline."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_precision.core.result import Measurement, Result
from keras_precision.report.charts.chart import Chart, axis, colour, label, marker_line
from keras_precision.report.downsampling import downsample
from keras_precision.report.values import series

__all__ = ["divergence_step", "loss_chart"]

_THRESHOLD = 0.1
_WINDOWS = 50  # per run: a mean over so many steps averages out the noise of single batches

Series = tuple[Sequence[int], Sequence[float | None]]


def divergence_step(baseline: Series, other: Series, threshold: float = _THRESHOLD) -> int | None:
    """Return the first step from which ``|other - baseline| > threshold * |baseline|`` holds to the end.

    A value that is not finite differs from one that is. None: the curves end together, or have no step in common.

    Example:
        >>> divergence_step(([0, 1, 2, 3], [3.0, 2.0, 1.0, 0.5]), ([0, 1, 2, 3], [3.0, 2.1, 1.2, 0.9]))
        2
    """
    expected = dict(zip(*baseline, strict=True))
    first = None
    for step, value in zip(*other, strict=True):
        if step in expected:
            differs = _differ(expected[step], value, threshold)
            first = (step if first is None else first) if differs else None
    return first


def _differ(expected: float | None, value: float | None, threshold: float) -> bool:
    if expected is None or value is None:
        return False
    if not (math.isfinite(expected) and math.isfinite(value)):
        return math.isfinite(expected) != math.isfinite(value)
    return abs(value - expected) > threshold * abs(expected)


def loss_chart(results: Sequence[Result]) -> Chart | None:
    """Return the loss curves by steps, or else by epochs, with the step where a run diverges from the first.

    None: no run has a loss.

    Example:
        >>> loss_chart([Result("run")]) is None
        True
    """
    results = [_over_seeds(result) for result in results]
    subject = next((unit for unit in ("step", "epoch") if any(run.select("loss", unit) for run in results)), None)
    if subject is None:
        return None
    curves = {index: series(result, "loss", subject) for index, result in enumerate(results)}
    shift = int(subject == "epoch")  # Keras counts epochs from 0 in logs, and from 1 in the progress bar
    curves = {index: ([step + shift for step in steps], values) for index, (steps, values) in curves.items() if steps}
    window = max(1, max(len(steps) for steps, _ in curves.values()) // _WINDOWS) if subject == "step" else 1
    means = {index: (steps, _running_mean(values, window)) for index, (steps, values) in curves.items()}
    traces = [_curve(label(results[index].name), index, mean, subject) for index, mean in means.items()]
    traces += _validation(results) if subject == "epoch" else []
    marks, notes = _divergences(results, means, subject)
    notes += [f"Points are means of the last {window} steps."] if window > 1 else []
    notes += [text for index, curve in curves.items() for text in _not_finite(results[index].name, curve, subject)]
    positive = all(value is None or value > 0 for trace in traces for value in trace["y"])
    return Chart(
        key="loss",
        title="Loss curves",
        about="Training loss as full lines, validation loss dashed. Where curves coincide, the precision does no harm.",
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
    """Return a result with epochs that are means over its seeds, unless it has epochs already."""
    if result.select("loss", "epoch") or not any(row.subject.startswith("seed ") for row in result.select("loss")):
        return result
    rows = [
        Measurement("epoch", metric, float(np.mean(values)), step)
        for metric in ("loss", "val_loss")
        for step, values in sorted(_by_step(result, metric).items())
    ]
    return replace(result, measurements=tuple(rows))


def _by_step(result: Result, metric: str) -> dict[int, list[float]]:
    losses: dict[int, list[float]] = {}
    for row in result.select(metric):
        if row.subject.startswith("seed ") and row.step is not None and isinstance(row.value, int | float):
            losses.setdefault(row.step, []).append(float(row.value))
    return losses


def _running_mean(values: Sequence[float | None], window: int) -> list[float | None]:
    """Return means over the last ``window`` values; NaN where one of them is not finite."""
    data = np.array([math.nan if value is None else value for value in values], np.float64)
    if window == 1:
        return list(map(float, data))
    invalid = ~np.isfinite(data)
    sums, counts = np.cumsum(np.where(invalid, 0.0, data)), np.arange(1.0, len(data) + 1)
    invalid_counts = np.cumsum(invalid)
    for total in (sums, counts, invalid_counts):
        total[window:] -= total[:-window].copy()
    return list(map(float, np.where(invalid_counts > 0, math.nan, sums / counts)))


def _divergences(
    results: Sequence[Result], means: dict[int, tuple[list[int], list[float | None]]], subject: str
) -> tuple[list[Any], list[str]]:
    (first, baseline), *others = means.items()
    marks, notes = [], []
    for index, mean in others:
        at, name = divergence_step(baseline, mean), results[index].name
        if at is not None:
            marks.append(marker_line(at, label(f"{name} diverges", 32), colour(index)))
            notes.append(
                f"{name} diverges from {results[first].name} at {subject} {at}: from there to the end, the losses differ by more than {100 * _THRESHOLD:.0f} %."
            )
    if others and not marks:
        notes.append(
            f"No run diverges from {results[first].name}: at the end, all are within {100 * _THRESHOLD:.0f} % of its loss."
        )
    return marks, notes


def _curve(name: str, index: int, points: Series, subject: str, dash: str = "solid") -> dict[str, Any]:
    steps, values = downsample(*points)
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
    invalid = [value is not None and not math.isfinite(value) for value in values]
    if any(invalid):
        at = steps[invalid.index(True)]
        after = "from there to the end" if all(invalid[invalid.index(True) :]) else "and finite again later"
        yield f"{name}: the loss is not finite at {subject} {at}, {after}."
