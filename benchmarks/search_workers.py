"""A precision search in several processes: how much faster three workers are than one, and what twenty kills lose.

    python benchmarks/search_workers.py --kills 20

``speed`` runs one search three times: in one process, with a chief and one worker, with a chief and three; the front must
be the same. A trial's time is the machine's: on as many cores as there are workers, more would be gained. ``kills`` runs a
chief and three workers, and kills one of the four with SIGKILL at random moments; each is begun again. No trial that had
ended may be lost or run again, and the front must be that of one process. Each trial waits for two seconds there, so
that kills meet trials; searches are begun until the kills are done.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from search_nets import chain
from side_by_side import machine, markdown

import keras_precision as kp
from keras_precision.search.workers import run_workers

SCRIPT = """
import json, os, sys, time
import numpy as np
import keras
import keras_precision as kp

folder, wait = sys.argv[1], float(sys.argv[2])
name = os.environ.get("KERASTUNER_TUNER_ID", "alone")
with open(os.path.join(folder, f"pid_{name}"), "w") as file:
    file.write(str(os.getpid()))
x = np.load(os.path.join(folder, "x.npy"))
tuner = kp.PrecisionTuner(
    keras.models.load_model(os.path.join(folder, "model.keras")), x, x, ("int8", "int4"), objective="front",
    directory=folder, project_name="search", verbose=False,
)
run = tuner.run_trial

def run_trial(trial, *args, **options):
    path = os.path.join(tuner.get_trial_dir(trial.trial_id), "trial.json")
    status = json.load(open(path))["status"] if os.path.exists(path) else "NEW"
    with open(os.path.join(folder, "log"), "a") as log:
        log.write(f"{time.time()} {name} {trial.trial_id} {status}\\n")
    time.sleep(wait)
    return run(trial, *args, **options)

tuner.run_trial = run_trial
tuner.search(lease_s=60)
"""


def main() -> None:
    """Run what is asked for, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["speed", "kills"])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--samples", type=int, default=512, help="that each plan is judged on")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        if "speed" in options.parts:
            speed(Path(folder), options)
        if "kills" in options.parts:
            kills(Path(folder), options)


def prepared(folder: Path, options: argparse.Namespace, name: str) -> Path:
    """Return a folder with the script, a net and samples."""
    made = folder / name
    made.mkdir()
    (made / "search.py").write_text(SCRIPT)
    model = chain(options.layers)
    model.save(made / "model.keras")
    samples = np.random.default_rng(0).normal(size=(options.samples, 16, 16, 8)).astype("float32")
    np.save(made / "x.npy", samples)
    return made


def command(folder: Path, wait: float = 0.0) -> list[str]:
    """Return what a process of the search runs."""
    return [sys.executable, str(folder / "search.py"), str(folder), str(wait)]


def environment() -> dict[str, str]:
    """Return the variables of the processes."""
    paths = os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}


def trials(folder: Path) -> list[list[str]]:
    """Return time, process, trial and status before, of each trial that was begun."""
    return [line.split() for line in (folder / "log").read_text().splitlines()]


def front(folder: Path) -> list[dict[str, str]]:
    """Return the plans of the front of a search that has ended."""
    import keras

    x = np.load(folder / "x.npy")
    tuner = kp.PrecisionTuner(
        keras.models.load_model(folder / "model.keras"), x, x, ("int8", "int4"), objective="front", directory=folder,
        project_name="search", verbose=False,
    )  # fmt: skip
    before = len(tuner.oracle.trials)
    tuner.search()
    assert len(tuner.oracle.trials) == before, "the search had not ended"
    return [dict(each.plan.layers) for each in tuner.pareto_front() if each.plan is not None]


def alone(folder: Path, options: argparse.Namespace, name: str) -> Path:
    """Run the search in one process."""
    made = prepared(folder, options, name)
    subprocess.run(command(made), env=environment(), check=True)
    return made


def speed(folder: Path, options: argparse.Namespace) -> None:
    """Time the search in one process, with one worker and with three."""
    rows, fronts = [], []
    for name, workers in (("one process", 0), ("a chief and one worker", 1), ("a chief and three workers", 3)):
        began = time.perf_counter()
        if workers:
            made = prepared(folder, options, f"workers{workers}")
            run_workers(command(made), workers, environment=environment())
        else:
            made = alone(folder, options, "alone")
        took = time.perf_counter() - began
        begun = trials(made)
        span = max(each.stat().st_mtime for each in made.glob("search/trial_*/evaluation.npz")) - float(begun[0][0])
        fronts.append(front(made))
        rows.append([name, str(len(begun)), f"{took:.1f}", f"{span:.1f}", str(fronts[-1] == fronts[0])])
    title = f"speed: a chain of {options.layers} layers, {options.samples} samples, {os.cpu_count()} cores"
    print(markdown(title, ["processes", "plans run", "all (s)", "of which trials (s)", "same front"], rows))


def kill(folder: Path, count: int, seed: int, told: list[str], over: threading.Event) -> None:
    """Kill a random process of the search at random moments, and note which, until it was done often enough."""
    drawn = random.Random(seed)
    while len(told) < count and not over.wait(drawn.uniform(0.5, 6.0)):
        if not (folder / "log").exists():  # none is at work yet
            continue
        name = drawn.choice(["chief", "worker0", "worker1", "worker2"])
        try:
            os.kill(int((folder / f"pid_{name}").read_text()), signal.SIGKILL)
        except (ProcessLookupError, FileNotFoundError, ValueError):  # it is being begun again
            continue
        told.append(name)


def kills(folder: Path, options: argparse.Namespace) -> None:
    """Kill processes of searches until that was done often enough, and look for what was lost."""
    expected = front(alone(folder, options, "undisturbed"))
    rows, count = [], 0
    while count < options.kills and len(rows) < options.kills:
        found = killed_search(folder, options, len(rows), options.kills - count)
        count += int(found[0].split()[0])
        rows.append([*found[:-1], str(found[-1] == expected)])
    header = [
        "kills",
        "processes begun again",
        "trials ended",
        "begun again, not ended",
        "ended and run again",
        "same front",
    ]
    title = (
        f"kills: a chain of {options.layers} layers, a chief and three workers, {count} kills in {len(rows)} searches"
    )
    print(markdown(title, header, rows))


def killed_search(folder: Path, options: argparse.Namespace, number: int, count: int) -> list[Any]:
    """Run a search, kill its processes, and return what was counted, and its front."""
    made = prepared(folder, options, f"killed{number}")
    told: list[str] = []
    over = threading.Event()
    thread = threading.Thread(target=kill, args=(made, count, options.seed + number, told, over))
    thread.start()
    again = run_workers(command(made, 2.0), 3, restarts=10 * options.kills, environment=environment())
    over.set()
    thread.join()
    begun = trials(made)
    oracle: dict[str, Any] = json.loads((made / "search" / "oracle.json").read_text())
    repeated = [each for each in begun if each[3] in ("COMPLETED", "FAILED", "INVALID")]
    twice = len(begun) - len({each[2] for each in begun})
    killed = f"{len(told)} ({told.count('chief')} of the chief)"
    return [killed, str(again), str(len(oracle["end_order"])), str(twice), str(len(repeated)), front(made)]


if __name__ == "__main__":
    main()
