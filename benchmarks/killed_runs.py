"""Kill training runs with SIGKILL at random moments, and read what the profiler left.

    python benchmarks/killed_runs.py --runs 100

Each run trains a small net with ``PrecisionProfiler(path=...)`` in a process of its own, and counts
its steps in shared memory. The parent kills it at a random moment, reads the result, and compares.
The promise: every result is readable, and short of at most 64 steps or those of one second.
"""

import argparse
import mmap
import os
import random
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from keras_precision import Environment, Result

CHILD = """
import mmap, struct, sys, time
import keras, numpy as np
import keras_precision as kp

with open(sys.argv[2], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 16)

class Counting(keras.callbacks.Callback):
    steps = 0
    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        memory[:16] = struct.pack("qd", self.steps, time.time())

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
x = np.ones((64000, 4), "float32")
model.fit(x, x[:, 0], batch_size=8, epochs=100, verbose=0, callbacks=[kp.PrecisionProfiler(path=sys.argv[1]), Counting()])
"""


class Outcome(NamedTuple):
    """What one killed run left: steps trained, steps in the result, and whether it could be read."""

    trained: int
    written: int
    readable: bool


def counted(memory: mmap.mmap) -> int:
    """Steps that the child has counted so far."""
    return int(struct.unpack("qd", memory[:16])[0])


def killed_run(folder: Path, rng: random.Random) -> Outcome:
    """Start a run, kill it at a random moment after its first step, and read its result."""
    path, counter = folder / "run.json", folder / "steps"
    counter.write_bytes(bytes(16))
    with counter.open("r+b") as file, mmap.mmap(file.fileno(), 16) as memory:
        child = subprocess.Popen([sys.executable, "-c", CHILD, path, counter], stderr=subprocess.DEVNULL)
        while counted(memory) == 0 and child.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 2))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        trained = counted(memory)
    try:
        return Outcome(trained, len(Result.load(path).select("step_time_ms")), readable=True)
    except (OSError, ValueError):
        return Outcome(trained, 0, readable=False)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        outcomes = [killed_run(Path(folder), rng) for _ in range(options.runs)]
    lost = [outcome.trained - outcome.written for outcome in outcomes]
    environment = Environment.here()
    print(f"{environment.processor}, {environment.cores} cores, {environment.system}\n")
    print("| runs killed | readable | steps trained (median) | steps lost: median | most | short by more than 64 |")
    print("| --: | --: | --: | --: | --: | --: |")
    readable, broken = sum(outcome.readable for outcome in outcomes), sum(steps > 64 for steps in lost)
    trained = statistics.median(outcome.trained for outcome in outcomes)
    print(f"| {len(outcomes)} | {readable} | {trained:.0f} | {statistics.median(lost):.0f} | {max(lost)} | {broken} |")


if __name__ == "__main__":
    main()
