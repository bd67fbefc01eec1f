"""The chart of the loss scale, and of the steps that were skipped."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from keras_precision.core.result import Result
from keras_precision.report.charts.chart import Chart, axis, colour, label
from keras_precision.report.downsampling import thinned
from keras_precision.report.values import figure, series

__all__ = ["loss_scale_chart"]


def loss_scale_chart(results: Sequence[Result]) -> Chart | None:
    """Return how the loss scale went, and where steps were skipped.

    Args:
        results: Training runs.

    Returns:
        Two charts over one axis: the scale on top, the count of skipped steps below; None where no run has a
        scale and none skipped.

    Example:
        >>> loss_scale_chart([Result("run")]) is None
        True
    """
    runs = [(index, result) for index, result in enumerate(results) if _scaled(result)]
    if not runs:
        return None
    traces = [trace for index, result in runs for trace in (*_scale(result, index), *_skipped(result, index))]
    return Chart(
        key="loss-scale",
        title="Loss scale and skipped steps",
        about="A scale that rises, is halved at an overflow and rises again is healthy. One that falls and falls, with every step skipped, is not.",
        traces=tuple(traces),
        layout={
            "xaxis": axis("step", anchor="y2"),
            "yaxis": axis("loss scale", type="log", dtick=math.log10(2), domain=[0.42, 1], **_powers(traces)),
            "yaxis2": axis("skipped, in all", domain=[0, 0.34], rangemode="tozero"),
        },
        height=420,
        notes=tuple(text for _, result in runs for text in _words(result)),
    )


def _scaled(result: Result) -> bool:
    known = [value for metric in ("loss_scale", "skipped_steps") for value in series(result, metric)[1] if value]
    return bool(known)


def _scale(result: Result, index: int) -> Iterator[dict[str, Any]]:
    steps, values = series(result, "loss_scale", "fit")
    steps, values = thinned(steps, [value or None for value in values])  # a logarithm has no place for 0
    if any(value is not None for value in values):
        yield {
            "type": "scatter", "mode": "lines+markers" if len(steps) <= 60 else "lines", "name": label(result.name),
            "legendgroup": str(index), "x": steps, "y": values, "line": {"color": colour(index), "shape": "hv", "width": 2},
            "hovertemplate": f"{label(result.name)}<br>step %{{x}}: scale %{{y:,}}<extra></extra>",
        }  # fmt: skip


def _skipped(result: Result, index: int) -> Iterator[dict[str, Any]]:
    """The count by windows, exact where each step is known; else the count of each epoch."""
    places = result.select("skipped_in_window")
    total, steps, counts, texts = 0, [0], [0], ["start"]
    for row in places:
        if row.step is None or not isinstance(row.value, int):
            continue
        total += row.value
        steps.append(row.step)
        counts.append(total)
        texts.append(
            f"step {row.step} skipped" if row.subject == "step" else f"{row.value} of {label(row.subject)} skipped"
        )
    if not total:
        every = zip(*series(result, "skipped_steps", "fit"), strict=True)
        known = [(step, int(value)) for step, value in every if value is not None and math.isfinite(value)]
        steps, counts = [step for step, _ in known], [value for _, value in known]
        texts = [f"{value} skipped until step {step}" for step, value in known]
    elif (last := max(series(result, "skipped_steps", "fit")[0], default=0)) > steps[-1]:
        steps, counts, texts = [*steps, last], [*counts, total], [*texts, f"{total} skipped in all"]
    if steps:
        kept, shown = thinned(steps, counts)
        where = dict(zip(steps, texts, strict=True))
        yield {
            "type": "scatter", "mode": "lines+markers", "name": label(result.name), "legendgroup": str(index),
            "showlegend": False, "xaxis": "x", "yaxis": "y2", "x": kept, "y": shown, "text": [where[step] for step in kept],
            "line": {"color": colour(index), "shape": "hv", "width": 1.5}, "marker": {"size": 5},
            "hovertemplate": f"{label(result.name)}<br>%{{text}}<extra></extra>",
        }  # fmt: skip


def _powers(traces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Ticks at powers of two, few enough to be read."""
    values = [value for trace in traces if trace.get("yaxis") != "y2" for value in trace["y"] if value]
    if not values:
        return {}
    low, high = math.floor(math.log2(min(values))), math.ceil(math.log2(max(values)))
    powers = range(low, high + 1, max(1, math.ceil((high - low) / 6)))
    return {
        "tickmode": "array",
        "tickvals": [2.0**power for power in powers],
        "ticktext": [_power(power) for power in powers],
    }


def _power(power: int) -> str:
    return f"{2**power:,}" if 0 <= power <= 20 else f"2<sup>{power}</sup>"


def _words(result: Result) -> Iterator[str]:
    total = figure(result, "skipped_steps")
    if total:
        finite, not_finite = figure(result, "skipped_loss_finite"), figure(result, "skipped_loss_not_finite")
        kinds = (
            ""
            if finite is None or not_finite is None
            else f": {finite} with a finite loss (the scale searching), {not_finite} without"
        )
        yield f"{result.name} skipped {total:,} of {figure(result, 'batches') or 'all'} steps{kinds}."
    scale = figure(result, "loss_scale")
    if scale is not None and (scale == 0 or not math.isfinite(scale)):
        yield f"{result.name} ended with a loss scale of {scale:g}, for which the axis has no place."
    windows = [row.subject for row in result.select("skipped_in_window") if re.match(r"steps \d", row.subject)]
    if windows:
        yield f"{result.name}: the count was read from time to time, so that of {windows[0]} it is not known which were skipped."
