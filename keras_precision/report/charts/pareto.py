"""The Pareto charts: what each plan costs, and what it is worth."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from keras_precision.core.metrics import metric_of
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.report.charts.chart import Chart, axis, label
from keras_precision.report.tables.runs import formatted

__all__ = ["pareto_charts"]

_COSTS = ("size_bytes", "latency_ms", "step_time_ms")
_WORTH = ("accuracy", "val_accuracy", "agreement", "metric_drop", "divergence")
_MOST = 14  # layers named on hover


@dataclass(frozen=True)
class _Point:
    name: str
    cost: float
    worth: float
    plan: PrecisionPlan | None


def pareto_charts(results: Sequence[Result]) -> list[Chart]:
    """Return a chart for each cost that at least two results have beside a figure of worth.

    Args:
        results: Runs, files or plans of one machine.

    Returns:
        Size, latency or step time against accuracy (else agreement, else another metric of the user's own with a
        known direction); the plans that no other beats in both are linked, and hovering shows the plan.

    Example:
        >>> pareto_charts([Result("run")])
        []
    """
    charts = []
    for cost in _COSTS:
        for worth in _candidates(results):
            points = [point for result in results for point in _points(result, cost, worth)]
            if len({point.worth for point in points}) >= 2:
                charts.append(_chart(points, cost, worth))
                break
    return charts


def _candidates(results: Sequence[Result]) -> list[str]:
    """Figures of worth, the best known first; the loss last."""
    measured = {row.metric for result in results for row in result}
    others = sorted(metric for metric in measured if metric.startswith("val_") and metric_of(metric).better)
    return list(
        dict.fromkeys(
            [
                *_WORTH,
                *(other for other in others if other != "val_loss"),
                *(other for other in others if other == "val_loss"),
            ]
        )
    )


def _points(result: Result, cost: str, worth: str) -> Iterator[_Point]:
    """The point of a run or file; those of each subject, where a result holds many plans."""
    costs = _finite(result, cost)
    worths = _finite(result, worth)
    if len(costs) == 1 and len(worths) == 1:
        (price,), (value,) = costs.values(), worths.values()
        yield _Point(result.name, price, value, result.plan)
        return
    for subject in costs.keys() & worths.keys():
        yield _Point(subject, costs[subject], worths[subject], None)


def _finite(result: Result, metric: str) -> dict[str, float]:
    """Subject to summary; where there is none, to the last step."""
    rows = result.select(metric)
    rows = tuple(row for row in rows if row.step is None) or rows
    return {
        row.subject: float(row.value) for row in rows if isinstance(row.value, int | float) and math.isfinite(row.value)
    }


def front(points: Sequence[_Point], higher: bool) -> list[_Point]:
    """The points that no other is as cheap as and better, or cheaper than and as good."""
    sign = -1 if higher else 1
    kept: list[_Point] = []
    for point in sorted(points, key=lambda each: (each.cost, sign * each.worth)):
        if not kept or sign * point.worth < sign * kept[-1].worth:
            kept.append(point)
    return kept


def _chart(points: Sequence[_Point], cost: str, worth: str) -> Chart:
    better = metric_of(worth).better
    best = front(points, better == "higher")
    side = "upper" if better == "higher" else "lower"
    return Chart(
        key=f"pareto-{cost.replace('_', '-')}",
        title=f"{_named(worth).capitalize()} for its {_named(cost)}",
        about=f"The line links what no other beats in both; the {side} left is best. Hover to see the plan.",
        traces=(_trace(best, cost, worth, front=True), _trace([point for point in points if point not in best], cost, worth, front=False)),
        layout={
            "xaxis": axis(f"{_named(cost)} in {'kB' if cost == 'size_bytes' else metric_of(cost).unit}", rangemode="tozero"),
            "yaxis": axis(_named(worth), **(_percent(points) if _is_share(worth) else {})),
            "hovermode": "closest",
            "showlegend": False,
        },
        height=380,
    )  # fmt: skip


def _trace(points: Sequence[_Point], cost: str, worth: str, *, front: bool) -> dict[str, Any]:
    scale = 1e3 if cost == "size_bytes" else 1.0
    few = len(points) <= 12
    return {
        "type": "scatter", "mode": ("lines+" if front else "") + "markers" + ("+text" if few else ""),
        "x": [float(f"{point.cost / scale:.5g}") for point in points], "y": [float(f"{point.worth:.6g}") for point in points],
        "text": [label(point.name, 24) for point in points], "textposition": "top center", "cliponaxis": False,
        "hovertext": [_hover(point, cost, worth) for point in points], "hovertemplate": "%{hovertext}<extra></extra>",
        "marker": {"size": 11 if front else 9, "color": "#4269d0" if front else "#9498a0"},
        "line": {"color": "#4269d0", "width": 1.5, "dash": "dot", "shape": "hv"},
    }  # fmt: skip


def _hover(point: _Point, cost: str, worth: str) -> str:
    lines = [
        f"<b>{label(point.name)}</b>",
        f"{_named(cost)}: {formatted(cost, point.cost)}",
        f"{_named(worth)}: {formatted(worth, point.worth)}",
    ]
    if point.plan is not None:
        lines.append(f"default: {point.plan.default}")
        layers = list(point.plan.layers.items())
        lines += [f"{label(path, 40)}: {precision}" for path, precision in layers[:_MOST]]
        lines += [f"and {len(layers) - _MOST} more layers"] if len(layers) > _MOST else []
    return "<br>".join(lines)


def _named(metric: str) -> str:
    known = {
        "size_bytes": "size",
        "latency_ms": "latency",
        "step_time_ms": "step time",
        "val_accuracy": "validation accuracy",
    }
    return known.get(metric, metric.replace("_", " "))


def _percent(points: Sequence[_Point]) -> dict[str, str]:
    """Ticks in percent, with as many digits as tell them apart."""
    spread = max(point.worth for point in points) - min(point.worth for point in points)
    return {"tickformat": ".2%" if spread < 0.02 else ".0%" if spread > 0.2 else ".1%"}


def _is_share(metric: str) -> bool:
    return metric.removeprefix("val_") in ("accuracy", "agreement")
