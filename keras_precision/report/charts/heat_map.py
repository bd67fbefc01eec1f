"""The heat map of layers and formats: where values would vanish, and where they would not fit."""

import math
from collections.abc import Mapping, Sequence

from keras_precision.core.result import Result
from keras_precision.report.charts.chart import Chart, label

__all__ = ["heat_maps"]

_OF = {"activation": "activations", "gradient": "gradients", "weight_gradient": "gradients of weights"}
_SHORT = {"activation": "activ.", "gradient": "gradients", "weight_gradient": "w. grad."}
_WHAT = (
    ("float16_underflow", "float16", "underflow"),
    ("float16_overflow", "float16", "overflow"),
    ("bfloat16_underflow", "bfloat16", "underflow"),
    ("bfloat16_overflow", "bfloat16", "overflow"),
    ("float16_error", "float16", "error"),
    ("bfloat16_error", "bfloat16", "error"),
    ("int8_error", "int8", "error"),
    ("non_finite", "as trained", "not finite"),
)
_LEAST = 1e-6  # of all values: below this, a share is drawn as none
_ERRORS = "An error is foretold from the sizes of the values. It has a colour from 1 % on, and that of a share of 0.1 % at 10 %."
_MATTERS = 0.01  # an error: what every value loses in bfloat16 is 0.2 %
_SCALE = [[0.0, "rgba(127,127,127,0.10)"], [0.02, "#f6d9a8"], [0.5, "#f0883e"], [1.0, "#b3123f"]]


def heat_maps(results: Sequence[Result]) -> list[Chart]:
    """Return a heat map for each run whose layers were watched.

    Args:
        results: Training runs.

    Returns:
        Layers from the first to the last, against what would happen to their values in each format; the worst
        step counts.

    Example:
        >>> heat_maps([Result("run")])
        []
    """
    charts = [_heat_map(result, index) for index, result in enumerate(results)]
    return [chart for chart in charts if chart is not None]


def _heat_map(result: Result, index: int) -> Chart | None:
    every = {(of, column): worst for of in _OF for column in _WHAT if (worst := _worst(result, f"{of}_{column[0]}"))}
    if not every:
        return None
    columns = {column: worst for column, worst in every.items() if _matters(column, worst)} or every
    errors = any(what == "error" for _, (_, _, what) in columns)
    layers = list(dict.fromkeys(layer for worst in columns.values() for layer in worst))
    shares = [[columns[column].get(layer) for column in columns] for layer in layers]
    heads = [f"{_SHORT[of]}<br>{name}<br>{what}" for of, (_, name, what) in columns]
    wide = [f"{_OF[of]}, {name}: {what}" for of, (_, name, what) in columns]
    return Chart(
        key=f"layers-{index}",
        title=f"Layers of {result.name}",
        about="The share of values that would become 0 (underflow) or infinite (overflow) in a format, and what rounding takes from the others (error), at the worst step seen. A dark cell names the layer to keep in float32.",
        traces=({
            "type": "heatmap", "x": heads, "y": list(range(len(layers))), "xgap": 2, "ygap": 1,
            "z": [[_depth(share, what) for share, (_, (_, _, what)) in zip(row, columns, strict=True)] for row in shares],
            "text": [[f"{label(layer, 80)}<br>{head}: {_percent(share)}" for head, share in zip(wide, row, strict=True)] for layer, row in zip(layers, shares, strict=True)],
            "hovertemplate": "%{text}<extra></extra>", "zmin": math.log10(_LEAST), "zmax": 0, "colorscale": _SCALE,
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
        notes=(*_clean([column for column in every if column not in columns]), *([_ERRORS] if errors else [])),
        width=200 + 55 * len(columns),
    )  # fmt: skip


def _matters(column: tuple[str, tuple[str, str, str]], worst: Mapping[str, float]) -> bool:
    return max(worst.values()) >= (_MATTERS if column[1][2] == "error" else 0) and any(worst.values())


def _clean(columns: Sequence[tuple[str, tuple[str, str, str]]]) -> list[str]:
    """Name what no layer has, in one sentence."""
    kinds: dict[str, list[str]] = {}
    for of, (_, name, what) in columns:
        kind = {"not finite": "value that is not finite", "error": f"error of 1 % in {name}"}.get(
            what, f"{what} in {name}"
        )
        kinds.setdefault(kind, []).append(_OF[of])
    parts = [kind if len(of) == len(_OF) else f"{kind} ({', '.join(of)})" for kind, of in kinds.items()]
    return [f"No layer has any {'; '.join(parts)}."] if parts else []


def _worst(result: Result, metric: str) -> Mapping[str, float]:
    """Layer to the largest share of any step."""
    found: dict[str, float] = {}
    for row in result.select(metric):
        if isinstance(row.value, int | float) and math.isfinite(row.value):
            found[row.subject] = max(float(row.value), found.get(row.subject, 0.0))
    return found


def _depth(share: float | None, what: str) -> float | None:
    if share is None:
        return None
    return round(math.log10(min(max(share**3 if what == "error" else share, _LEAST), 1.0)), 2)


def _percent(share: float | None) -> str:
    if share is None:
        return "not measured"
    return "none" if share == 0 else f"{100 * share:.3g} %"
