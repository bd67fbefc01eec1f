"""The chart of a comparison: intervals coloured by verdict."""

from collections.abc import Iterator, Sequence
from typing import Any

from keras_precision.comparison.comparison import Comparison
from keras_precision.core.errors import InputError, NotComparableError, NotMeasuredError
from keras_precision.report.charts.chart import Chart, axis, label

__all__ = ["verdict_chart"]

# Ratios to the baseline, drawn inverted, so that right is better.
_METRICS = (
    ("step_time_ms", "speed of a step"),
    ("latency_ms", "speed of a call"),
    ("peak_memory_mb", "memory saved"),
    ("size_bytes", "size saved"),
)
_COLOURS = {"better": "#3ca951", "worse": "#ff725c", "inconclusive": "#9498a0"}


def verdict_chart(comparison: Comparison, number: int = 0) -> Chart | None:
    """Return ratios to the baseline with their intervals; None without any. ``number`` makes the chart's key unique.

    Example:
        >>> from keras_precision.core.result import Result
        >>> verdict_chart(Comparison(Result("a"), [Result("b")])) is None
        True
    """
    points = [point for run in comparison.others for point in _points(comparison, run.name)]
    if not points:
        return None
    names = [point["name"] for point in points]
    traces = [
        _trace(verdict, [point for point in points if point["verdict"] == verdict], names) for verdict in _COLOURS
    ]
    line = {
        "type": "line",
        "x0": 1,
        "x1": 1,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": "#9498a0", "width": 1.5, "dash": "dot"},
    }
    return Chart(
        key=f"verdicts-{number}",
        title=f"Against {comparison.baseline.name}",
        about="Ratio to the baseline, with 95 % intervals; above 1 is better. A bar that crosses the dotted line is inconclusive.",
        traces=tuple(trace for trace in traces if trace["x"]),
        layout={
            "shapes": [line],
            "showlegend": True,
            "xaxis": axis("times the baseline; right is better"),
            "yaxis": {
                "autorange": "reversed", "tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names,
                "automargin": True, "range": [len(names) - 0.5, -0.5],
            },
        },
        height=150 + 34 * len(names),
    )  # fmt: skip


def _points(comparison: Comparison, run: str) -> Iterator[dict[str, Any]]:
    for metric, quantity in _METRICS:
        try:
            interval, verdict = comparison.interval(metric, run), comparison.verdict(metric, run)
        except (NotMeasuredError, NotComparableError, InputError):
            continue
        if min(interval.low, interval.estimate) > 0:
            low, middle, high = 1 / interval.high, 1 / interval.estimate, 1 / interval.low
            yield {
                "name": f"{label(run, 28)}: {quantity}",
                "verdict": verdict,
                "low": low,
                "middle": middle,
                "high": high,
            }


def _trace(verdict: str, points: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "name": verdict,
        "x": [float(f"{point['middle']:.5g}") for point in points], "y": [names.index(point["name"]) for point in points],
        "error_x": {
            "type": "data", "symmetric": False, "thickness": 2.5, "width": 6, "color": _COLOURS[verdict],
            "array": [float(f"{point['high'] - point['middle']:.5g}") for point in points],
            "arrayminus": [float(f"{point['middle'] - point['low']:.5g}") for point in points],
        },
        "marker": {"size": 11, "color": _COLOURS[verdict]},
        "text": [f"{point['name']}<br>{point['middle']:.2f} ({point['low']:.2f} to {point['high']:.2f}): {verdict}" for point in points],
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip
