"""Scopes: the layer that is being called, and the line of the user's code, while a model is traced."""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from keras_precision._adapters.adapter import KerasAdapter

__all__ = ["Scopes", "is_library"]

_HERE = __file__
_LIBRARIES = tuple(
    f"{part}{name}{part}"
    for part in ("/", "\\")
    for name in ("keras", "tf_keras", "tensorflow", "jax", "jaxlib", "torch", "keras_precision", "optree", "numpy")
)


def is_library(file: str) -> bool:
    """Tell whether a file belongs to Python, a framework or this package."""
    return (
        file.startswith("<")
        or any(part in file for part in _LIBRARIES)
        or Path(file).parent == Path(threading.__file__).parent
    )


class Scopes:
    """The path of the innermost layer that has one and is being called; ``paths`` is layer path to layer."""

    def __init__(self, adapter: KerasAdapter, paths: Mapping[str, Any]) -> None:
        self._adapter = adapter
        self._paths = {id(layer): path for path, layer in paths.items()}
        self.names = list(paths)
        self.current = ""

    @contextmanager
    def following(self, enter: Callable[[str], AbstractContextManager[Any]]) -> Iterator[None]:
        """Follow the calls of layers inside a ``with`` block; a call runs in the context manager ``enter(path)``."""

        def watch(layer: Any, proceed: Callable[[], Any]) -> Any:
            path, outer = self._paths.get(id(layer)), self.current
            if path is None or outer:
                return proceed()
            self.current = path
            try:
                with enter(path):
                    return proceed()
            finally:
                self.current = outer

        with self._adapter.watching_calls(watch):
            yield

    def line(self) -> str:
        """Return file and line of the user's code that is running inside a layer's call; empty where there is none."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            file = frame.f_code.co_filename
            if file == _HERE and frame.f_code.co_name == "watch":
                return ""
            if not is_library(file):
                return f"{Path(file).name}:{frame.f_lineno}"
            frame = frame.f_back
        return ""

    @staticmethod
    def line_of(frames: list[tuple[str, str, int]]) -> str:
        """Return the same from recorded frames (file, function, line), the innermost first."""
        for file, function, number in frames:
            if file == _HERE and function == "watch":
                return ""
            if not is_library(file):
                return f"{Path(file).name}:{number}"
        return ""
