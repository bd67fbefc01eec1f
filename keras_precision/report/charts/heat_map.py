"""The heat map of layers and formats: where values would vanish, and where they would not fit."""

import math
from collections.abc import Mapping, Sequence

from keras_precision.report.charts.chart import Chart, label
from keras_precision.result import Result

__all__ = ["heat_maps"]

_OF = {"activation": "activations", "gradient": "gradients", "weight_gradient": "gradients of weights"}
_SHORT = {"activation": "activ.", "gradient": "gradients", "weight_gradient": "w. grad."}
_WHAT = (
    ("float16_underflow", "float16", "underflow"),
    ("float16_overflow", "float16", "overflow"),
    ("bfloat16_underflow", "bfloat16", "underflow"),
    ("bfloat16_overflow", "bfloat16", "overflow"),
    ("non_finite", "as trained", "not finite"),
)
_LEAST = 1e-6  # of all values: below this, a share is drawn as none
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
    columns = {column: worst for column, worst in every.items() if any(worst.values())} or every
    clean = [
        f"{_OF[of]} in {name} ({what})" for of, (key, name, what) in every if (of, (key, name, what)) not in columns
    ]
    layers = list(dict.fromkeys(layer for worst in columns.values() for layer in worst))
    shares = [[columns[column].get(layer) for column in columns] for layer in layers]
    heads = [f"{_SHORT[of]}<br>{name}<br>{what}" for of, (_, name, what) in columns]
    wide = [f"{_OF[of]}, {name}: {what}" for of, (_, name, what) in columns]
    return Chart(
        key=f"layers-{index}",
        title=f"Layers of {result.name}",
        about="The share of values that would become 0 (underflow) or infinite (overflow) in a format, at the worst step seen. A dark cell names the layer to keep in float32.",
        traces=({
            "type": "heatmap", "x": heads, "y": list(range(len(layers))), "xgap": 2, "ygap": 1,
            "z": [[_depth(share) for share in row] for row in shares],
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
        notes=(f"No layer has any of: {', '.join(clean)}.",) if clean else (),
        width=200 + 55 * len(columns),
    )  # fmt: skip


def _worst(result: Result, metric: str) -> Mapping[str, float]:
    """Layer to the largest share of any step."""
    found: dict[str, float] = {}
    for row in result.select(metric):
        if isinstance(row.value, int | float) and math.isfinite(row.value):
            found[row.subject] = max(float(row.value), found.get(row.subject, 0.0))
    return found


def _depth(share: float | None) -> float | None:
    return None if share is None else round(math.log10(max(share, _LEAST)), 2)


def _percent(share: float | None) -> str:
    if share is None:
        return "not measured"
    return "none" if share == 0 else f"{100 * share:.3g} %"
