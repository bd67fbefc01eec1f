"""Worker: a process of one stack that checks models, and is replaced when it ends or takes too long."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from generated.description import Description

__all__ = ["BY_HAND", "PROCESS", "Worker"]

PROCESS = "no process ends"
"""The invariant that the child itself cannot check."""

BY_HAND = "by hand: "
"""Before what runs without the package, and may end the process without being its fault."""

_TESTS = Path(__file__).parents[1]
_MODELS = 40  # per process: each conversion leaks, https://github.com/tensorflow/tensorflow/issues/122598
_LIMIT_S = 240


class Worker:
    """Checks models in a child process, which a fatal one may end.

    Args:
        stack: ``"tensorflow"``, ``"jax"``, ``"torch"`` or ``"tf_keras"``.
    """

    def __init__(self, stack: str) -> None:
        self.stack = stack
        self._child: subprocess.Popen[str] | None = None
        self._models = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def check(self, description: Description, checks: Sequence[str]) -> dict[str, Any]:
        """Return the verdicts on a model by check, or ``{"invalid": reason}`` where Keras itself refuses it."""
        child = self._started()
        assert child.stdin is not None
        child.stdin.write(json.dumps({"description": description, "checks": list(checks)}) + "\n")
        child.stdin.flush()
        timer = threading.Timer(_LIMIT_S, child.kill)
        timer.start()
        try:
            return self._answer(child)
        finally:
            timer.cancel()

    def _answer(self, child: "subprocess.Popen[str]") -> dict[str, Any]:
        assert child.stdout is not None
        running = "the start"
        for line in child.stdout:
            answer: dict[str, Any] = json.loads(line)
            if "runs" not in answer:
                holds = {PROCESS: {"verdict": "holds"}}
                return answer if "invalid" in answer else {**answer, "verdicts": {**answer["verdicts"], **holds}}
            running = answer["runs"]
        reason = f"the process ended with {child.wait()} in '{running}'"
        self.stop()
        verdict = "skipped" if running.startswith(BY_HAND) else "violated"
        return {"verdicts": {PROCESS: {"verdict": verdict, "reason": reason}}}

    def _started(self) -> "subprocess.Popen[str]":
        """Return a child that takes one more model."""
        if self._child is None or self._child.poll() is not None or self._models >= _MODELS:
            self.stop()
            self._child, self._models = _child(self.stack), 0
        self._models += 1
        return self._child

    def stop(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _child(stack: str) -> "subprocess.Popen[str]":
    path = os.pathsep.join([str(_TESTS), os.environ.get("PYTHONPATH", ""), str(_TESTS.parent)])
    variables = {
        **os.environ,
        "PYTHONPATH": path,
        "KERAS_PRECISION_STACK": stack,
        "KERAS_BACKEND": "tensorflow" if stack == "tf_keras" else stack,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "generated.child"],
        env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
