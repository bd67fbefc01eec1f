"""Interruptions: Ctrl-C at any line of the package, and what of the process it must leave as it was."""

import importlib
import linecache
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["count_lines", "interrupt_at", "process_state"]

PACKAGE = str(Path(importlib.import_module("keras_precision").__file__ or "").parent)


def process_state() -> Mapping[str, Any]:
    """Return what belongs to the caller: policies, TF32, environment, folder, warnings, standard streams."""
    keras, tensorflow = importlib.import_module("keras"), importlib.import_module("tensorflow")
    legacy = sys.modules.get("tf_keras")
    return {
        "policy": keras.config.dtype_policy().name,
        "policy of tf_keras": None if legacy is None else legacy.mixed_precision.global_policy().name,
        "TF32": tensorflow.config.experimental.tensor_float_32_execution_enabled(),
        "environment": {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "folder": os.getcwd(),
        "warnings": list(warnings.filters),
        "streams": (sys.stdout, sys.stderr, *(os.fstat(number).st_ino for number in (1, 2))),
    }


def count_lines(act: Callable[[], object]) -> int:
    """Return how many lines of the package an act runs, in this thread."""
    return _traced(act, None)


def interrupt_at(number: int, act: Callable[[], object]) -> bool:
    """Raise KeyboardInterrupt in front of a line of the package, by its number; return whether it got out of the act."""
    try:
        _traced(act, number)
    except KeyboardInterrupt:
        return True
    return False


def _line(frame: FrameType) -> str:
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()


def _traced(act: Callable[[], object], stop: int | None) -> int:
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        # Python looks for signals where a function begins and a loop goes on: never between the end of a block and the end of
        # its context, where tracing could raise.
        if event == "line" and not _line(frame).startswith("with "):
            lines += 1
            if lines == stop:
                sys.settrace(None)
                raise KeyboardInterrupt(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return lines
