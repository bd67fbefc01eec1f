"""The Pareto front of plans as text for a terminal."""

from collections.abc import Sequence

from keras_precision.core.result import Result
from keras_precision.report.tables.runs import format_value

__all__ = ["front_text"]

_WIDTH, _HEIGHT = 56, 10
_AXES = {"size_bytes": "size", "step_time_ratio": "step time"}


def front_text(results: Sequence[Result]) -> str:
    """Return a chart of size or step time against quality, and a line per plan with the letter of its point.

    Example:
        >>> from keras_precision.core.plan import PrecisionPlan
        >>> from keras_precision.core.result import Measurement
        >>> rows = (Measurement("t", "size_bytes", 52000), Measurement("t", "divergence", 0.01))
        >>> print(front_text([Result("trial 3", rows, plan=PrecisionPlan.deployment("int8"))]).splitlines()[-1])
        a  trial 3  52.0 kB  divergence 0.01  all int8
    """
    if not results:
        return "No plan succeeded."
    quality = "metric_drop" if results[0].select("metric_drop") else "divergence"
    cost = "size_bytes" if results[0].select("size_bytes") else "step_time_ratio"
    points = [(float(result.value(cost)), float(result.value(quality))) for result in results]
    letters = [chr(ord("a") + number % 26) for number in range(len(points))]
    grid = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    for (across, up), letter in zip(_grid_positions(points), letters, strict=True):
        grid[up][across] = letter
    lines = [
        f"{quality.replace('_', ' ')}",
        *("│" + "".join(row).rstrip() for row in grid),
        "└" + "─" * _WIDTH + f" {_AXES[cost]}",
    ]
    return "\n".join([*lines, *(_line(*pair, cost, quality) for pair in zip(letters, results, strict=True))])


def _grid_positions(points: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """Return column and row of the points; rows count from the top, where the loss is largest."""
    axes = list(zip(*points, strict=True))
    positions = []
    for point in points:
        shares = [
            (value - min(axis)) / ((max(axis) - min(axis)) or 1.0) for value, axis in zip(point, axes, strict=True)
        ]
        positions.append((round(shares[0] * (_WIDTH - 1)), round((1 - shares[1]) * (_HEIGHT - 1))))
    return positions


def _line(letter: str, result: Result, cost: str, quality: str) -> str:
    size = (
        format_value(cost, result.value(cost)) if cost == "size_bytes" else f"{_AXES[cost]} {result.value(cost):.2f}x"
    )
    lost = f"{quality.replace('_', ' ')} {format_value(quality, result.value(quality))}"
    return f"{letter}  {result.name}  {size}  {lost}  {_layers(result)}"


def _layers(result: Result) -> str:
    """Return the default precision of the plan, and the layers that differ."""
    plan = result.plan
    if plan is None:
        return "plan unknown"
    groups: dict[str, list[str]] = {}
    for path, precision in plan.layers.items():
        groups.setdefault(precision, []).append(path)
    if not groups:
        return f"all {plan.default}"
    return f"{plan.default}, but " + "; ".join(
        f"{precision}: {', '.join(paths)}" for precision, paths in groups.items()
    )
