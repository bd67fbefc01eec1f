"""The chart of the loss scale and of skipped steps."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from keras_precision.core.result import Result
from keras_precision.report.charts.chart import Chart, axis, colour, label
from keras_precision.report.downsampling import downsample
from keras_precision.report.values import number_or_none, series

__all__ = ["loss_scale_chart"]


def loss_scale_chart(results: Sequence[Result]) -> Chart | None:
    """Return the loss scale over the steps, with the cumulative count of skipped steps below; None without either.

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
        about="A scale that rises, is halved at an overflow and rises again is healthy. One that only falls, with every step skipped, is not.",
        traces=tuple(traces),
        layout={
            "xaxis": axis("step", anchor="y2"),
            "yaxis": axis("loss scale", type="log", dtick=math.log10(2), domain=[0.42, 1], **_powers(traces)),
            "yaxis2": axis("skipped, in all", domain=[0, 0.34], rangemode="tozero"),
        },
        height=420,
        notes=tuple(text for _, result in runs for text in _notes(result)),
    )


def _scaled(result: Result) -> bool:
    known = [value for metric in ("loss_scale", "skipped_steps") for value in series(result, metric)[1] if value]
    return bool(known)


def _scale(result: Result, index: int) -> Iterator[dict[str, Any]]:
    steps, values = series(result, "loss_scale", "fit")
    steps, values = downsample(steps, [value or None for value in values])  # a logarithmic axis has no 0
    if any(value is not None for value in values):
        yield {
            "type": "scatter", "mode": "lines+markers" if len(steps) <= 60 else "lines", "name": label(result.name),
            "legendgroup": str(index), "x": steps, "y": values, "line": {"color": colour(index), "shape": "hv", "width": 2},
            "hovertemplate": f"{label(result.name)}<br>step %{{x}}: scale %{{y:,}}<extra></extra>",
        }  # fmt: skip


def _skipped(result: Result, index: int) -> Iterator[dict[str, Any]]:
    """Return the cumulative count by windows of steps, or else by epochs."""
    windows = result.select("skipped_in_window")
    total, steps, counts, texts = 0, [0], [0], ["start"]
    for row in windows:
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
        shown_steps, shown_counts = downsample(steps, counts)
        text_at = dict(zip(steps, texts, strict=True))
        yield {
            "type": "scatter", "mode": "lines+markers", "name": label(result.name), "legendgroup": str(index),
            "showlegend": False, "xaxis": "x", "yaxis": "y2", "x": shown_steps, "y": shown_counts, "text": [text_at[step] for step in shown_steps],
            "line": {"color": colour(index), "shape": "hv", "width": 1.5}, "marker": {"size": 5},
            "hovertemplate": f"{label(result.name)}<br>%{{text}}<extra></extra>",
        }  # fmt: skip


def _powers(traces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return ticks at powers of two, few enough to be readable."""
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


def _notes(result: Result) -> Iterator[str]:
    total = number_or_none(result, "skipped_steps")
    if total:
        finite, not_finite = (
            number_or_none(result, "skipped_loss_finite"),
            number_or_none(result, "skipped_loss_not_finite"),
        )
        kinds = (
            ""
            if finite is None or not_finite is None
            else f": {finite} with a finite loss (the scale searching), {not_finite} without"
        )
        yield f"{result.name} skipped {total:,} of {number_or_none(result, 'batches') or 'all'} steps{kinds}."
    scale = number_or_none(result, "loss_scale")
    if scale is not None and (scale == 0 or not math.isfinite(scale)):
        yield f"{result.name} ended with a loss scale of {scale:g}, which the axis cannot show."
    windows = [row.subject for row in result.select("skipped_in_window") if re.match(r"steps \d", row.subject)]
    if windows:
        yield f"{result.name}: the count was not read at every step, so it is unknown which of {windows[0]} were skipped."
