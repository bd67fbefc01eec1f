"""A chart as plain values for plotly, and the parts that all charts share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from keras_precision.core.result import Result

__all__ = ["Chart", "axis", "colour", "label", "labels", "marker_line"]

# Distinct with any kind of colour vision, on white and on black (Observable's "observable10").
_COLOURS = (
    "#4269d0",
    "#efb118",
    "#ff725c",
    "#6cc5b0",
    "#3ca951",
    "#ff8ab7",
    "#a463f2",
    "#97bbf5",
    "#9c6b4e",
    "#9498a0",
)
_MAX_CHARACTERS = 48  # of a name


@dataclass(frozen=True)
class Chart:
    """A chart with its explanation.

    Attributes:
        key: The id in the page; letters and dashes.
        title: The heading.
        about: How to read it, in a sentence.
        traces: The traces of plotly.
        layout: The layout of plotly; the page sets the colours of text and lines.
        height: The height in pixels.
        notes: What was measured, excluded or unknown.
        width: The minimum width in pixels; 0 where it fits any window.
    """

    key: str
    title: str
    about: str
    traces: tuple[Mapping[str, Any], ...]
    layout: Mapping[str, Any] = field(default_factory=dict)
    height: int = 340
    notes: tuple[str, ...] = ()
    width: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the values that the page passes to plotly."""
        return {
            "key": self.key,
            "data": list(self.traces),
            "layout": dict(self.layout),
            "height": self.height,
            "width": self.width,
        }


def colour(index: int) -> str:
    """Return the CSS colour of a result by its index, the same in every chart.

    Example:
        >>> colour(0) == colour(10)
        True
    """
    return _COLOURS[index % len(_COLOURS)]


def label(text: str, max_characters: int = _MAX_CHARACTERS) -> str:
    """Return a name for plotly: shortened in the middle, and escaped, because plotly interprets tags.

    Example:
        >>> label("<b>stem</b>"), label("a" * 30 + "b" * 30, 9)
        ('&lt;b&gt;stem&lt;/b&gt;', 'aaaa…bbbb')
    """
    flat = " ".join(text.split())
    if len(flat) > max_characters:
        half = (max_characters - 1) // 2
        flat = f"{flat[:half]}…{flat[-half:]}"
    return escape(flat, quote=False)


def labels(results: Sequence[Result]) -> list[str]:
    """Return the names of results as labels."""
    return [label(result.name) for result in results]


def axis(title: str, **options: Any) -> dict[str, Any]:
    """Return an axis with a title and other options of plotly.

    Example:
        >>> axis("step", type="log")
        {'title': {'text': 'step'}, 'type': 'log'}
    """
    return {"title": {"text": title}, **options}


def marker_line(x: float, text: str, tint: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a vertical line at ``x`` and its text, as a shape and an annotation of plotly."""
    line = {
        "type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper",
        "line": {"color": tint, "width": 1.5, "dash": "dot"},
    }  # fmt: skip
    note = {
        "x": x,
        "y": 1,
        "yref": "paper",
        "yanchor": "bottom",
        "text": text,
        "showarrow": False,
        "font": {"color": tint},
    }
    return line, note
