"""The function that renders results in notebooks: the package's ``__init__`` registers it, so that no value imports a renderer."""

from collections.abc import Callable
from typing import Any

__all__ = ["html_of", "set_html_renderer"]

_DRAW: dict[str, Callable[[Any], str]] = {}


def set_html_renderer(draw: Callable[[Any], str]) -> None:
    """Register the function that renders a result as HTML."""
    _DRAW["html"] = draw


def html_of(result: Any) -> str:
    """Return a result as HTML, as a notebook shows it."""
    return _DRAW["html"](result)
