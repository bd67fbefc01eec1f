"""Chart: what plotly draws, as plain values, and the parts that all charts share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from keras_precision.core.result import Result

__all__ = ["Chart", "axis", "colour", "label", "labels", "marker_line"]

# Told apart with any kind of colour vision, on white and on black (Observable's "observable10").
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
_MOST = 48  # characters of a name


@dataclass(frozen=True)
class Chart:
    """A chart, and what to know about it.

    Attributes:
        key: Its name in the page; letters and dashes.
        title: Its heading.
        about: How to read it, in a sentence.
        traces: What plotly draws.
        layout: Axes and marks; colours of text and lines are those of the page.
        height: Its height in pixels.
        notes: What was measured, left out or not known.
        width: The least width in pixels at which it can be read; 0 where it fits any window.
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
        """Return what the page hands to plotly.

        Returns:
            Traces, layout and height.
        """
        return {
            "key": self.key,
            "data": list(self.traces),
            "layout": dict(self.layout),
            "height": self.height,
            "width": self.width,
        }


def colour(index: int) -> str:
    """Return the colour of the run with this number, the same in every chart.

    Args:
        index: Its place among the results.

    Returns:
        A colour as CSS writes it.

    Example:
        >>> colour(0) == colour(10)
        True
    """
    return _COLOURS[index % len(_COLOURS)]


def label(text: str, most: int = _MOST) -> str:
    """Return a name as plotly can draw it: shortened in its middle, and escaped, since plotly reads tags in texts.

    Args:
        text: The name.
        most: The most characters to keep.

    Returns:
        The label.

    Example:
        >>> label("<b>stem</b>"), label("a" * 30 + "b" * 30, 9)
        ('&lt;b&gt;stem&lt;/b&gt;', 'aaaa…bbbb')
    """
    flat = " ".join(text.split())
    if len(flat) > most:
        half = (most - 1) // 2
        flat = f"{flat[:half]}…{flat[-half:]}"
    return escape(flat, quote=False)


def labels(results: Sequence[Result]) -> list[str]:
    """Return the label of each result.

    Args:
        results: The results.

    Returns:
        Their names, as plotly can draw them.
    """
    return [label(result.name) for result in results]


def axis(title: str, **others: Any) -> dict[str, Any]:
    """Return an axis.

    Args:
        title: What it shows, with its unit.
        **others: More of what plotly knows of axes.

    Returns:
        The axis.

    Example:
        >>> axis("step", type="log")
        {'title': {'text': 'step'}, 'type': 'log'}
    """
    return {"title": {"text": title}, **others}


def marker_line(x: float, text: str, tint: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a vertical line at a place of the x axis, and what is written beside it.

    Args:
        x: Where it stands.
        text: What is written at its top.
        tint: Its colour.

    Returns:
        A shape and an annotation of plotly.
    """
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
