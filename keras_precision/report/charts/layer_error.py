"""The charts of what each layer loses: by quantization, or lowered alone."""

import math
from collections.abc import Sequence
from typing import Any

from keras_precision.core.metrics import metric_of
from keras_precision.core.result import Result
from keras_precision.report.charts.chart import Chart, axis, colour, label

__all__ = ["layer_errors"]

_METRICS = {
    "snr_db": "The signal-to-noise ratio of each layer's output against the float model: 10 dB less is three times the error. Short bars are to blame first.",
    "snr_loss_db": "How much of the signal-to-noise ratio each layer itself loses. Long bars are to blame first.",
    "clipped_share": "The share of the values that lie outside the range of the file. Calibrate with data that reach as far.",
    "divergence_lowered_alone": "How far the answers are from the float model's when this layer alone is lowered.",
    "divergence_only_layer_in_float": "How far the answers still are when this layer alone is kept in float. Short bars win most back.",
    "divergence": "How far the answers are from the float model's when this layer alone is lowered. Long bars are the layers to keep.",
}
_TALL = 25  # layers: such a chart is scrolled, and its axis stays in sight at the top
_LEAST = 2  # subjects: one is a file, and no layer


def layer_errors(results: Sequence[Result]) -> list[Chart]:
    """Return a chart for each result and metric that tell layers apart.

    Args:
        results: Results whose rows have layers as subjects, or such as ``"stem in int4"``.

    Returns:
        Bars in the order of the layers, a colour for each precision.

    Example:
        >>> layer_errors([Result("run")])
        []
    """
    charts = []
    for index, result in enumerate(results):
        for metric, about in _METRICS.items():
            known = {
                row.subject: float(row.value)
                for row in result.select(metric)
                if row.step is None and isinstance(row.value, int | float) and math.isfinite(row.value)
            }
            if len(known) >= _LEAST:
                charts.append(_chart(f"{metric.replace('_', '-')}-{index}", result.name, metric, about, known))
    return charts


def _chart(key: str, name: str, metric: str, about: str, known: dict[str, float]) -> Chart:
    parts = {subject: (subject.rpartition(" in ")[0] or subject, subject.rpartition(" in ")[2]) for subject in known}
    layers = list(dict.fromkeys(layer for layer, _ in parts.values()))
    kinds = list(dict.fromkeys(kind if kind != layer else "" for layer, kind in parts.values()))
    traces: list[dict[str, Any]] = []
    for number, kind in enumerate(kinds):
        mine = [subject for subject, (layer, own) in parts.items() if (own if own != layer else "") == kind]
        traces.append({
            "type": "bar", "orientation": "h", "name": label(kind or metric.replace("_", " ")), "marker": {"color": colour(number)},
            "y": [layers.index(parts[subject][0]) for subject in mine], "x": [float(f"{known[subject]:.4g}") for subject in mine],
            "text": [label(subject, 80) for subject in mine], "textposition": "none", "hovertemplate": "%{text}: %{x}<extra></extra>",
        })  # fmt: skip
    unit = metric_of(metric).unit
    each = max(16, min(30, 1800 // len(layers))) + 8 * (len(kinds) - 1)
    return Chart(
        key=key,
        title=f"{metric_of(metric).name.replace('_db', '').replace('_', ' ').replace('snr', 'signal-to-noise ratio').capitalize()}: {name}",
        about=about,
        traces=tuple(traces),
        layout={
            "barmode": "group",
            "showlegend": len(kinds) > 1,
            "xaxis": axis(unit or metric.replace("_", " "), rangemode="tozero", tickformat="~%" if metric.endswith("_share") else "", side="top" if len(layers) > _TALL else "bottom"),
            "yaxis": {
                "autorange": "reversed", "tickmode": "array", "tickvals": list(range(len(layers))),
                "ticktext": [label(layer, 32) for layer in layers], "automargin": True, "showgrid": False,
            },
        },
        height=130 + each * len(layers),
    )  # fmt: skip
