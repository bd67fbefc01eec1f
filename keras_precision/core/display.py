"""The function that renders results for ``print`` and notebooks: the package's ``__init__`` registers it, so that no value imports a renderer."""

from collections.abc import Callable
from typing import Any

__all__ = ["html_of", "set_renderer", "text_of"]

_DRAW: dict[str, Callable[[Any, str], str]] = {}


def set_renderer(draw: Callable[[Any, str], str]) -> None:
    """Register the function that renders a result in a format, ``"html"`` or ``"text"``."""
    _DRAW["draw"] = draw


def html_of(result: Any) -> str:
    """Return a result as HTML, as a notebook shows it."""
    return _DRAW["draw"](result, "html")


def text_of(result: Any) -> str:
    """Return a result as text, as ``print`` shows it."""
    return _DRAW["draw"](result, "text")
