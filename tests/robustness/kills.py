"""Kills: an act is ended by a signal at a random moment, again and again in one folder, and what is left is looked at."""

import contextlib
import hashlib
import importlib
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import keras_precision as kp
from keras_precision.core.system.array_files import read_arrays
from keras_precision.runtimes.registry import open_runtime
from robustness.acts import READY

__all__ = ["kill_often"]

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ORPHAN_S = 5
STARTING_S = 300
KNOWN = re.compile(
    r"(run|result|comparison)\.json|run\.json\.partial|calibration\.npz|report\.html|model\.(tflite|onnx|xml|bin|mlpackage)"
    r"|search(_\d+)?"
)
KNOWN_IN_SEARCH = re.compile(r"search\.json|oracle\.json|\w+\.json|trial_\d+|trial\.json|evaluation\.npz")
MARK = "ROBUSTNESS_MARK"


def kill_often(name: str, folder: Path, count: int, rng: random.Random) -> Iterator[list[str]]:
    """Yield for each kill of an act what is wrong after it: nothing, where all is well."""
    tests, mark = Path(__file__).parents[1], uuid.uuid4().hex
    path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    variables = {
        **os.environ,
        "PYTHONPATH": path,
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        MARK: mark,
    }
    finished: dict[str, str] = {}
    for _ in range(count):
        with _started(name, folder, variables) as process:
            wrong = _wait_until_ready(process)
            took_s = _wait_until_ready(process, timed=True) if not wrong and not finished else None
            wrong = wrong or [f"'{path}' is litter" for path in _litter(folder)]
            wrong += [f"'{path}' was lost or has changed" for path in _lost(finished, folder)]
            time.sleep(rng.uniform(0, took_s if isinstance(took_s, float) else rng.choice((0.05, 0.5, 3.0))))
            process.send_signal(rng.choice(SIGNALS))
        wrong += [f"process {number} goes on" for number in _orphans(mark)]
        wrong += _unreadable(folder)
        finished = _trials(folder)
        yield wrong


@contextlib.contextmanager
def _started(name: str, folder: Path, variables: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "robustness.acts", name, str(folder)],
        env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield process
        process.wait(60)
    finally:
        process.kill()
        process.communicate()


def _wait_until_ready(process: "subprocess.Popen[str]", *, timed: bool = False) -> list[str] | float:
    """Wait until the act was done once; return what is wrong, or how long it took."""
    assert process.stdout is not None
    began = time.monotonic()
    while time.monotonic() - began < STARTING_S and select.select([process.stdout], [], [], STARTING_S)[0]:
        line = process.stdout.readline()
        if line.strip() == READY:
            return time.monotonic() - began if timed else []
        if not line:
            return [f"the next run ended with {process.wait()}"]
    return ["the next run did not end"]


def _orphans(mark: str) -> list[int]:
    """Return the processes that go on after the time that they have to end."""
    psutil, until = importlib.import_module("psutil"), time.monotonic() + ORPHAN_S
    while True:
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(process.pid)
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.2)


def _litter(folder: Path) -> list[str]:
    """Return what no finished run has."""
    names = [path for path in folder.iterdir() if not KNOWN.fullmatch(path.name)]
    inside = [path for path in folder.glob("search*/**/*") if not KNOWN_IN_SEARCH.fullmatch(path.name)]
    alive = [path for path in inside if path.name.startswith("alive_")]  # of the search that has begun by now
    return [str(path.relative_to(folder)) for path in (*names, *inside) if path not in alive]


def _trials(folder: Path) -> dict[str, str]:
    """Return the digests of the trials that have ended, but of searches that are overwritten."""
    paths = folder.glob("search_*/trial_*/evaluation.npz")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _lost(finished: dict[str, str], folder: Path) -> list[str]:
    return [path for path, digest in finished.items() if _trials(folder).get(path) != digest]


def _unreadable(folder: Path) -> list[str]:
    """Return what cannot be read of the files in a folder, where a finished run has put one of each."""
    wrong = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_dir() or hidden or ".mlpackage" in str(path):
            continue
        try:
            _read(path)
        except (kp.PrecisionError, OSError, ValueError) as error:
            wrong.append(f"{type(error).__name__}: {error}")
    return wrong


def _read(path: Path) -> None:
    if path.name in ("run.json", "result.json"):
        if any("did not end" in note for note in kp.Result.load(path).notes):
            raise ValueError(f"{path}: the finished result is gone")
    elif path.name == "comparison.json":
        kp.Comparison.load(path)
    elif path.name == "calibration.npz":
        kp.Calibration.load(path)
    elif path.suffix == ".tflite":
        kp.edge.inspect(path)
    elif path.suffix in (".onnx", ".xml"):
        open_runtime(path)
    elif path.name == "evaluation.npz":
        read_arrays(path.read_bytes())
    elif path.suffix == ".json":
        json.loads(path.read_bytes())
    elif path.suffix == ".html" and not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError(f"{path}: half a page")
