"""The heat map of underflow, overflow and rounding error by layer and format."""

import math
from collections.abc import Mapping, Sequence

from keras_precision.core.result import Result
from keras_precision.report.charts.chart import Chart, label

__all__ = ["heat_maps"]

_TENSORS = {"activation": "activations", "gradient": "gradients", "weight_gradient": "gradients of weights"}
_SHORT = {"activation": "activ.", "gradient": "gradients", "weight_gradient": "w. grad."}
_COLUMNS = (
    ("float16_underflow", "float16", "underflow"),
    ("float16_overflow", "float16", "overflow"),
    ("bfloat16_underflow", "bfloat16", "underflow"),
    ("bfloat16_overflow", "bfloat16", "overflow"),
    ("float16_error", "float16", "error"),
    ("bfloat16_error", "bfloat16", "error"),
    ("int8_error", "int8", "error"),
    ("non_finite", "as trained", "not finite"),
)
_MIN_SHARE = 1e-6  # a smaller share of all values is drawn as none
_ERRORS = "Errors are predicted from the magnitudes of the values. An error has a colour from 1 % on; that of 10 % is that of a share of 0.1 %."
_MIN_ERROR = 0.01  # rounding to bfloat16 alone is an error of 0.2 %
_SCALE = [[0.0, "rgba(127,127,127,0.10)"], [0.02, "#f6d9a8"], [0.5, "#f0883e"], [1.0, "#b3123f"]]


def heat_maps(results: Sequence[Result]) -> list[Chart]:
    """Return a heat map per training run with layer statistics: layers by format, at the worst step.

    Example:
        >>> heat_maps([Result("run")])
        []
    """
    charts = [_heat_map(result, index) for index, result in enumerate(results)]
    return [chart for chart in charts if chart is not None]


def _heat_map(result: Result, index: int) -> Chart | None:
    worst_shares = {
        (tensor, column): worst
        for tensor in _TENSORS
        for column in _COLUMNS
        if (worst := _worst(result, f"{tensor}_{column[0]}"))
    }
    if not worst_shares:
        return None
    columns = {column: worst for column, worst in worst_shares.items() if _matters(column, worst)} or worst_shares
    errors = any(effect == "error" for _, (_, _, effect) in columns)
    layers = list(dict.fromkeys(layer for worst in columns.values() for layer in worst))
    shares = [[columns[column].get(layer) for column in columns] for layer in layers]
    heads = [f"{_SHORT[tensor]}<br>{name}<br>{effect}" for tensor, (_, name, effect) in columns]
    descriptions = [f"{_TENSORS[tensor]}, {name}: {effect}" for tensor, (_, name, effect) in columns]
    return Chart(
        key=f"layers-{index}",
        title=f"Layers of {result.name}",
        about="The share of values that would become 0 (underflow) or infinite (overflow) in a format, and the relative rounding error of the others (error), at the worst step. A dark cell marks a layer to keep in float32.",
        traces=({
            "type": "heatmap", "x": heads, "y": list(range(len(layers))), "xgap": 2, "ygap": 1,
            "z": [[_depth(share, effect) for share, (_, (_, _, effect)) in zip(row, columns, strict=True)] for row in shares],
            "text": [[f"{label(layer, 80)}<br>{head}: {_percent(share)}" for head, share in zip(descriptions, row, strict=True)] for layer, row in zip(layers, shares, strict=True)],
            "hovertemplate": "%{text}<extra></extra>", "zmin": math.log10(_MIN_SHARE), "zmax": 0, "colorscale": _SCALE,
            "colorbar": {"tickvals": [-6, -4, -2, 0], "ticktext": ["0", "0.01 %", "1 %", "all"], "thickness": 10, "outlinewidth": 0, "lenmode": "pixels", "len": 150, "y": 1, "yanchor": "top"},
        },),
        layout={
            "xaxis": {"side": "top", "tickangle": 0, "type": "category", "fixedrange": True, "tickfont": {"size": 10}},
            "yaxis": {
                "autorange": "reversed", "tickmode": "array", "tickvals": list(range(len(layers))),
                "ticktext": [label(layer, 32) for layer in layers], "automargin": True, "showgrid": False,
            },
            "margin": {"t": 60, "b": 8},
        },
        height=80 + max(14, min(26, 1400 // len(layers))) * len(layers) + max(0, 90 - 20 * len(layers)),
        notes=(*_note_of_empty([column for column in worst_shares if column not in columns]), *([_ERRORS] if errors else [])),
        width=200 + 55 * len(columns),
    )  # fmt: skip


def _matters(column: tuple[str, tuple[str, str, str]], worst: Mapping[str, float]) -> bool:
    return max(worst.values()) >= (_MIN_ERROR if column[1][2] == "error" else 0) and any(worst.values())


def _note_of_empty(columns: Sequence[tuple[str, tuple[str, str, str]]]) -> list[str]:
    """Return a sentence about the columns that are empty in all layers."""
    tensors: dict[str, list[str]] = {}
    for tensor, (_, name, effect) in columns:
        special = {"not finite": "value that is not finite", "error": f"error of 1 % in {name}"}
        tensors.setdefault(special.get(effect, f"{effect} in {name}"), []).append(_TENSORS[tensor])
    parts = [
        problem if len(names) == len(_TENSORS) else f"{problem} ({', '.join(names)})"
        for problem, names in tensors.items()
    ]
    return [f"No layer has any {'; '.join(parts)}."] if parts else []


def _worst(result: Result, metric: str) -> Mapping[str, float]:
    """Return the largest share of any step by layer."""
    largest: dict[str, float] = {}
    for row in result.select(metric):
        if isinstance(row.value, int | float) and math.isfinite(row.value):
            largest[row.subject] = max(float(row.value), largest.get(row.subject, 0.0))
    return largest


def _depth(share: float | None, effect: str) -> float | None:
    if share is None:
        return None
    return round(math.log10(min(max(share**3 if effect == "error" else share, _MIN_SHARE), 1.0)), 2)


def _percent(share: float | None) -> str:
    if share is None:
        return "not measured"
    return "none" if share == 0 else f"{100 * share:.3g} %"
