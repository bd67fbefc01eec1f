"""What the benchmarks share: a process for each run, the watch that every arm carries, and tables in Markdown."""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import keras_precision as kp
from keras_precision._adapters.training.callback import Callback
from keras_precision.report.markdown import draw
from keras_precision.report.tables.runs import Table

STACKS = ("tensorflow", "jax", "torch", "tf_keras")


class Clock(Callback):
    """Notes when each step ended: the watch of every arm, and all that the no-op arm carries.

    It stands last in the list, so that what the other callbacks do lies between two of its notes. As
    it overrides ``on_train_batch_end``, Keras waits for each step in every arm alike.
    """

    def on_train_begin(self, logs: Any = None) -> None:
        """Forget earlier fits."""
        self.ends: list[int] = []
        self.epoch_ended = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter_ns())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note the time."""
        self.epoch_ended = time.perf_counter_ns()

    def steps_us(self, warmup: int) -> np.ndarray:
        """Return microseconds from step end to step end, without the first ``warmup`` steps."""
        return np.diff(np.asarray(self.ends[warmup:])) / 1e3

    @property
    def epoch_end_us(self) -> float:
        """Microseconds from the end of the last step to the end of the epoch."""
        return (self.epoch_ended - self.ends[-1]) / 1e3


def arguments_of(description: str, *, stacks: bool) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark takes; with ``--answer`` a process is the child of another."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answer", help=argparse.SUPPRESS)
    if stacks:
        parser.add_argument("--stack", choices=(*STACKS, "all"), default="all", help="the Keras to measure")
    return parser


def chosen(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the one that was named, or all of them."""
    return tuple(names) if name == "all" else (name,)


def keras_of(stack: str) -> Any:
    """Return the module ``keras`` or ``tf_keras``; KERAS_BACKEND has said which backend."""
    return importlib.import_module("tf_keras" if stack == "tf_keras" else "keras")


def in_child(script: str, *arguments: object, backend: str) -> Any:
    """Run a script of this folder in a process of its own, and return what it answers.

    Args:
        script: Its ``__file__``.
        *arguments: Its command line.
        backend: A stack, or a backend of Keras 3.

    Returns:
        What the child gave to ``answer``.

    Raises:
        SystemExit: The child failed; the end of what it wrote to standard error is the message.
    """
    keras_backend = "tensorflow" if backend == "tf_keras" else backend
    environment = {**os.environ, "KERAS_BACKEND": keras_backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answer.json"
        command = [sys.executable, script, *map(str, arguments), "--answer", str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed ({done.returncode}):\n{done.stderr[-3000:]}")
        for line in done.stderr.splitlines():
            if kp.PrecisionWarning.__name__ in line:  # a figure may be missing: whoever reads the table must know
                print(f"{backend}: {line}", file=sys.stderr)
        return json.loads(path.read_text(encoding="utf-8"))


def answer(path: str, value: Any) -> None:
    """Hand ``value`` to the parent."""
    Path(path).write_text(json.dumps(value), encoding="utf-8")


def markdown(title: str, header: Sequence[str], rows: Sequence[Sequence[object]], *notes: str) -> str:
    """Return a table in Markdown, the notes below it."""
    return draw(Table(title, tuple(header), tuple(tuple(map(str, row)) for row in rows), notes)) + "\n"


def machine(environment: kp.Environment | None = None) -> str:
    """Return the line that says what the figures were measured with."""
    here = environment or kp.Environment.here()
    packages = ", ".join(f"{package} {version}" for package, version in here.versions.items())
    device = "" if here.device == here.processor else f"{here.device}, "
    flags = ", ".join(here.cpu_flags)
    hardware = f"{device}{here.processor}, {here.cores} cores ({flags})"
    return f"Machine: {hardware}; {here.system}, Python {here.python}; {packages}."
