"""The Pareto charts of cost and quality."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from keras_precision.core.metrics import metric_of
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.report.charts.chart import Chart, axis, label
from keras_precision.report.tables.runs import format_value

__all__ = ["pareto_charts"]

_COSTS = ("size_bytes", "latency_ms", "step_time_ms")
_QUALITIES = ("accuracy", "val_accuracy", "agreement", "metric_drop", "divergence")
_MAX_LAYERS = 14  # listed on hover


@dataclass(frozen=True)
class _Point:
    name: str
    cost: float
    quality: float
    plan: PrecisionPlan | None


def pareto_charts(results: Sequence[Result]) -> list[Chart]:
    """Return charts of size, latency and step time against the first quality metric that two results of a machine have.

    The Pareto front is linked, and hovering shows the plan.

    Example:
        >>> pareto_charts([Result("run")])
        []
    """
    charts = []
    for cost in _COSTS:
        for quality in _candidates(results):
            points = [point for result in results for point in _points(result, cost, quality)]
            if len({point.quality for point in points}) >= 2:
                charts.append(_chart(points, cost, quality))
                break
    return charts


def _candidates(results: Sequence[Result]) -> list[str]:
    """Return the quality metrics in order of preference, the validation loss last."""
    measured = {row.metric for result in results for row in result}
    others = sorted(metric for metric in measured if metric.startswith("val_") and metric_of(metric).better)
    return list(
        dict.fromkeys(
            [
                *_QUALITIES,
                *(other for other in others if other != "val_loss"),
                *(other for other in others if other == "val_loss"),
            ]
        )
    )


def _points(result: Result, cost: str, quality: str) -> Iterator[_Point]:
    """Yield the point of a run or file, or one per subject of a result with many plans."""
    costs = _finite(result, cost)
    qualities = _finite(result, quality)
    if len(costs) == 1 and len(qualities) == 1:
        (lone_cost,), (lone_quality,) = costs.values(), qualities.values()
        yield _Point(result.name, lone_cost, lone_quality, result.plan)
        return
    for subject in costs.keys() & qualities.keys():
        yield _Point(subject, costs[subject], qualities[subject], None)


def _finite(result: Result, metric: str) -> dict[str, float]:
    """Return the summary by subject, or else the value of the last step."""
    rows = result.select(metric)
    rows = tuple(row for row in rows if row.step is None) or rows
    return {
        row.subject: float(row.value) for row in rows if isinstance(row.value, int | float) and math.isfinite(row.value)
    }


def front(points: Sequence[_Point], higher: bool) -> list[_Point]:
    """Return the Pareto front: points for which no other is both as cheap and as good, and better in one."""
    sign = -1 if higher else 1
    best: list[_Point] = []
    for point in sorted(points, key=lambda candidate: (candidate.cost, sign * candidate.quality)):
        if not best or sign * point.quality < sign * best[-1].quality:
            best.append(point)
    return best


def _chart(points: Sequence[_Point], cost: str, quality: str) -> Chart:
    better = metric_of(quality).better
    best = front(points, better == "higher")
    side = "upper" if better == "higher" else "lower"
    return Chart(
        key=f"pareto-{cost.replace('_', '-')}",
        title=f"{_title(quality).capitalize()} against {_title(cost)}",
        about=f"The line is the Pareto front; the {side} left is best. Hover to see the plan.",
        traces=(_trace(best, cost, quality, front=True), _trace([point for point in points if point not in best], cost, quality, front=False)),
        layout={
            "xaxis": axis(f"{_title(cost)} in {'kB' if cost == 'size_bytes' else metric_of(cost).unit}", rangemode="tozero"),
            "yaxis": axis(_title(quality), **(_percent(points) if _is_share(quality) else {})),
            "hovermode": "closest",
            "showlegend": False,
        },
        height=380,
    )  # fmt: skip


def _trace(points: Sequence[_Point], cost: str, quality: str, *, front: bool) -> dict[str, Any]:
    scale = 1e3 if cost == "size_bytes" else 1.0
    few = len(points) <= 12
    return {
        "type": "scatter", "mode": ("lines+" if front else "") + "markers" + ("+text" if few else ""),
        "x": [float(f"{point.cost / scale:.5g}") for point in points], "y": [float(f"{point.quality:.6g}") for point in points],
        "text": [label(point.name, 24) for point in points], "textposition": "top center", "cliponaxis": False,
        "hovertext": [_hover(point, cost, quality) for point in points], "hovertemplate": "%{hovertext}<extra></extra>",
        "marker": {"size": 11 if front else 9, "color": "#4269d0" if front else "#9498a0"},
        "line": {"color": "#4269d0", "width": 1.5, "dash": "dot", "shape": "hv"},
    }  # fmt: skip


def _hover(point: _Point, cost: str, quality: str) -> str:
    lines = [
        f"<b>{label(point.name)}</b>",
        f"{_title(cost)}: {format_value(cost, point.cost)}",
        f"{_title(quality)}: {format_value(quality, point.quality)}",
    ]
    if point.plan is not None:
        lines.append(f"default: {point.plan.default}")
        layers = list(point.plan.layers.items())
        lines += [f"{label(path, 40)}: {precision}" for path, precision in layers[:_MAX_LAYERS]]
        lines += [f"and {len(layers) - _MAX_LAYERS} more layers"] if len(layers) > _MAX_LAYERS else []
    return "<br>".join(lines)


def _title(metric: str) -> str:
    titles = {
        "size_bytes": "size",
        "latency_ms": "latency",
        "step_time_ms": "step time",
        "val_accuracy": "validation accuracy",
    }
    return titles.get(metric, metric.replace("_", " "))


def _percent(points: Sequence[_Point]) -> dict[str, str]:
    """Return a tick format in percent, with enough digits to distinguish the ticks."""
    spread = max(point.quality for point in points) - min(point.quality for point in points)
    return {"tickformat": ".2%" if spread < 0.02 else ".0%" if spread > 0.2 else ".1%"}


def _is_share(metric: str) -> bool:
    return metric.removeprefix("val_") in ("accuracy", "agreement")
