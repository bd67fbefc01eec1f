"""How a notebook shows a result: the face of the package says it, so that no value knows what draws it."""

from collections.abc import Callable
from typing import Any

__all__ = ["draw_with", "html_of"]

_DRAW: dict[str, Callable[[Any], str]] = {}


def draw_with(draw: Callable[[Any], str]) -> None:
    """Say what draws results.

    Args:
        draw: Given a result, returns HTML.
    """
    _DRAW["html"] = draw


def html_of(result: Any) -> str:
    """Return a result as a notebook shows it.

    Args:
        result: The result.

    Returns:
        HTML.
    """
    return _DRAW["html"](result)
