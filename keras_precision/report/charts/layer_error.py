"""The charts of quantization error by layer."""

import math
from collections.abc import Sequence
from typing import Any

from keras_precision.core.metrics import metric_of
from keras_precision.core.result import Result
from keras_precision.report.charts.chart import Chart, axis, colour, label

__all__ = ["layer_errors"]

_METRICS = {
    "snr_db": "The signal-to-noise ratio of each layer's output against the float model: 10 dB less is three times the error. Short bars mark the most sensitive layers.",
    "snr_loss_db": "The loss of signal-to-noise ratio within the layer. Long bars mark the most sensitive layers.",
    "clipped_share": "The share of values outside the calibrated range of the file. Calibrate with more representative data.",
    "divergence_lowered_alone": "The divergence of the predictions from the float model with only this layer quantized.",
    "divergence_only_layer_in_float": "The divergence that remains with only this layer in float. Short bars recover most.",
    "divergence": "The divergence of the predictions from the float model with only this layer quantized. Long bars mark the layers to keep in float.",
}
_TALL = 25  # layers: a chart that is scrolled has its axis at the top
_MIN_LAYERS = 2  # a single subject is a file, not a layer


def layer_errors(results: Sequence[Result]) -> list[Chart]:
    """Return a bar chart per result and metric whose subjects are layers, or layers in precisions (``"stem in int4"``).

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
            if len(known) >= _MIN_LAYERS:
                charts.append(_chart(f"{metric.replace('_', '-')}-{index}", result.name, metric, about, known))
    return charts


def _chart(key: str, name: str, metric: str, about: str, known: dict[str, float]) -> Chart:
    parts = {subject: (subject.rpartition(" in ")[0] or subject, subject.rpartition(" in ")[2]) for subject in known}
    layers = list(dict.fromkeys(layer for layer, _ in parts.values()))
    precisions = list(dict.fromkeys(name if name != layer else "" for layer, name in parts.values()))
    traces: list[dict[str, Any]] = []
    for number, precision in enumerate(precisions):
        subjects = [subject for subject, (layer, name) in parts.items() if (name if name != layer else "") == precision]
        traces.append({
            "type": "bar", "orientation": "h", "name": label(precision or metric.replace("_", " ")), "marker": {"color": colour(number)},
            "y": [layers.index(parts[subject][0]) for subject in subjects], "x": [float(f"{known[subject]:.4g}") for subject in subjects],
            "text": [label(subject, 80) for subject in subjects], "textposition": "none", "hovertemplate": "%{text}: %{x}<extra></extra>",
        })  # fmt: skip
    unit = metric_of(metric).unit
    bar_height = max(16, min(30, 1800 // len(layers))) + 8 * (len(precisions) - 1)
    return Chart(
        key=key,
        title=f"{metric_of(metric).name.replace('_db', '').replace('_', ' ').replace('snr', 'signal-to-noise ratio').capitalize()}: {name}",
        about=about,
        traces=tuple(traces),
        layout={
            "barmode": "group",
            "showlegend": len(precisions) > 1,
            "xaxis": axis(unit or metric.replace("_", " "), rangemode="tozero", tickformat="~%" if metric.endswith("_share") else "", side="top" if len(layers) > _TALL else "bottom"),
            "yaxis": {
                "autorange": "reversed", "tickmode": "array", "tickvals": list(range(len(layers))),
                "ticktext": [label(layer, 32) for layer in layers], "automargin": True, "showgrid": False,
            },
        },
        height=130 + bar_height * len(layers),
    )  # fmt: skip
