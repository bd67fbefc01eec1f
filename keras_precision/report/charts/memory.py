"""The chart of training memory by kind, with its peak."""

import math
from collections.abc import Sequence
from typing import Any

from keras_precision.core.result import Result
from keras_precision.report.charts.chart import Chart, axis, label
from keras_precision.report.values import number_or_none

__all__ = ["memory_chart"]

_KINDS = (
    ("weights_mb", "weights", "#4269d0"),
    ("gradients_mb", "gradients", "#6cc5b0"),
    ("optimizer_mb", "optimizer", "#efb118"),
    ("activations_mb", "activations and workspace", "#ff725c"),
)


def memory_chart(results: Sequence[Result]) -> Chart | None:
    """Return a stacked bar per training run, with a mark at the peak if one source measured all peaks; None without data.

    Example:
        >>> memory_chart([Result("run")]) is None
        True
    """
    metrics = ("peak_memory_mb", *(metric for metric, _, _ in _KINDS))
    runs = [result for result in results if any(number_or_none(result, metric) is not None for metric in metrics)]
    if not runs:
        return None
    names = [label(result.name, 28) for result in runs]
    bars = [
        _bars(runs, names, *kind)
        for kind in _KINDS
        if any(number_or_none(result, kind[0]) is not None for result in runs)
    ]
    sources = {
        result.environment.sources.get("peak_memory_mb", "")
        for result in runs
        if number_or_none(result, "peak_memory_mb")
    }
    peaks = [_peaks(runs, names)] if len(sources) == 1 else []
    notes = [f"Peak: {source}." for source in sources if source] if peaks else []
    if len(sources) > 1:
        notes.append(
            f"Peaks are not drawn: they come from {len(sources)} sources, which are not comparable. The table of runs has them."
        )
    if not peaks and not bars:
        return None
    return Chart(
        key="memory",
        title="Memory by kind",
        about="Weights, gradients and optimizer stay in float32 under mixed precision: what it saves is activations.",
        traces=(*bars, *peaks),
        layout={
            "barmode": "stack",
            "bargap": 0.35,
            "xaxis": axis("MB (10<sup>6</sup> bytes)", rangemode="tozero"),
            "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
        },
        height=150 + 46 * len(runs),
        notes=tuple(notes),
    )


def _bars(runs: Sequence[Result], names: Sequence[str], metric: str, title: str, tint: str) -> dict[str, Any]:
    return {
        "type": "bar", "orientation": "h", "name": title, "y": list(names), "x": [_rounded(number_or_none(result, metric)) for result in runs],
        "marker": {"color": tint}, "hovertemplate": f"%{{y}}<br>{title}: %{{x}} MB<extra></extra>",
    }  # fmt: skip


def _peaks(runs: Sequence[Result], names: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "name": "measured peak", "y": list(names),
        "x": [_rounded(number_or_none(result, "peak_memory_mb")) for result in runs],
        "marker": {"symbol": "line-ns", "size": 26, "line": {"width": 3, "color": "#a463f2"}, "color": "#a463f2"},
        "hovertemplate": "%{y}<br>peak: %{x} MB<extra></extra>",
    }  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None
