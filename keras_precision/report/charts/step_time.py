"""The charts of step time: its distribution, and its course."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.result import Result
from keras_precision.report.charts.chart import Chart, axis, colour, label
from keras_precision.report.downsampling import downsample
from keras_precision.report.tables.runs import format_value
from keras_precision.report.values import series

__all__ = ["step_time_line", "step_time_spread"]

_MEASURED, _EXCLUDED = "step", "warm-up step"
_MIN_STEPS, _BINS = 5, 60


def step_time_spread(results: Sequence[Result]) -> Chart | None:
    """Return histograms of the step times of runs with at least five steps, without warm-up; None without such runs.

    Example:
        >>> step_time_spread([Result("run")]) is None
        True
    """
    times = {index: _times(result) for index, result in enumerate(results)}
    times = {index: values for index, values in times.items() if len(values) >= _MIN_STEPS}
    if not times:
        return None
    every = np.concatenate(list(times.values()))
    low, high = np.percentile(every, (0.5, 99.5))
    low, high = (low, high) if high > low else (low * 0.95, high * 1.05)
    edges = np.linspace(low, high, _BINS + 1)
    traces = tuple(_histogram(results[index], index, values, edges) for index, values in times.items())
    beyond = sum(int((values > high).sum()) for values in times.values())
    notes = (
        [f"{beyond} steps took longer than {high:.3g} ms, the right end; the chart of single steps shows them."]
        if beyond
        else []
    )
    return Chart(
        key="step-time-spread",
        title="Distribution of step times",
        about="The share of steps by step time. A narrow peak is a steady run; a second peak has a cause, such as waiting for data.",
        traces=traces,
        layout={
            "xaxis": axis("step time in ms"),
            "yaxis": axis("share of steps", tickformat=".0%", rangemode="tozero"),
            "hovermode": "x unified",
        },
        notes=tuple(notes),
    )  # fmt: skip


def _times(result: Result) -> npt.NDArray[np.float64]:
    """Return the times of all measured steps; in a comparison, those of all processes."""
    rows = [row for row in result.select("step_time_ms") if row.step is not None]
    values = [row.value for row in rows if row.subject == _MEASURED or row.subject.startswith("process ")]
    data = np.asarray([value for value in values if isinstance(value, int | float)], np.float64)
    return data[np.isfinite(data)]


def _histogram(
    result: Result, index: int, values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]
) -> dict[str, Any]:
    counts, _ = np.histogram(values, edges)
    middles = (edges[:-1] + edges[1:]) / 2
    median = format_value("step_time_ms", float(np.median(values)))
    return {
        "type": "scatter", "mode": "lines", "fill": "tozeroy", "name": f"{label(result.name)} (median {median})",
        "x": [float(f"{middle:.5g}") for middle in middles], "y": [float(f"{share:.4g}") for share in counts / len(values)],
        "line": {"shape": "hvh", "color": colour(index), "width": 1.5}, "opacity": 0.85,
    }  # fmt: skip


def step_time_line(results: Sequence[Result]) -> Chart | None:
    """Return step times in the order of training, with crosses for excluded steps; None where no run has steps.

    Example:
        >>> step_time_line([Result("run")]) is None
        True
    """
    traces: list[dict[str, Any]] = []
    for index, result in enumerate(results):
        traces += _line(result, index)
    if not traces:
        return None
    return Chart(
        key="step-time-line",
        title="Step by step",
        about="Crosses are steps of warm-up, tracing or compilation, which all other numbers exclude.",
        traces=tuple(traces),
        layout={
            "xaxis": axis("step"),
            "yaxis": axis("step time in ms", type="log", dtick=1, minor={"dtick": "D1", "showgrid": False}),
        },
    )


def _line(result: Result, index: int) -> list[dict[str, Any]]:
    name = label(result.name)
    traces: list[dict[str, Any]] = []
    steps, values = downsample(*series(result, "step_time_ms", _MEASURED))
    if steps:
        traces.append({
            "type": "scatter", "mode": "lines", "name": name, "legendgroup": str(index), "x": steps, "y": values,
            "line": {"color": colour(index), "width": 1.2}, "hovertemplate": f"{name}<br>step %{{x}}: %{{y}} ms<extra></extra>",
        })  # fmt: skip
    steps, values = downsample(*series(result, "step_time_ms", _EXCLUDED), max_points=200)
    if steps:
        traces.append({
            "type": "scatter", "mode": "markers", "name": f"{name}: excluded", "legendgroup": str(index), "x": steps, "y": values,
            "showlegend": len(traces) == 0, "marker": {"color": colour(index), "symbol": "x", "size": 8},
            "hovertemplate": f"{name}<br>step %{{x}}: %{{y}} ms, warm-up or compilation<extra></extra>",
        })  # fmt: skip
    return traces
