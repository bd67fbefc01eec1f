"""A run that is killed leaves a readable result."""

import json
import os
import signal
import subprocess
import sys

import nets
import pytest

import keras_precision as kp
from keras_precision.callbacks.journal import Journal
from keras_precision.core.errors import DestinationError, FileFormatError
from keras_precision.core.result import Measurement, Result

ROWS = [Measurement("step", "step_time_ms", float(number), number) for number in range(1, 6)]


def test_rows_are_readable_as_soon_as_they_are_flushed(tmp_path):
    """A log that nobody closed is a result, with a note that says what it is."""
    journal = Journal(tmp_path / "run.json", Result("run", notes=("stored elsewhere",)))
    journal.add(ROWS)
    journal.flush()
    result = Result.load(tmp_path / "run.json")
    assert result.measurements == tuple(ROWS)
    assert result.name == "run"
    assert result.notes == ("the run did not end: this is what it had written",)
    journal.close()


def test_many_rows_are_written_without_being_asked(tmp_path):
    """No more than 64 rows are buffered."""
    journal = Journal(tmp_path / "run.json", Result("run"))
    for _ in range(20):
        journal.add(ROWS)
    assert len(Result.load(tmp_path / "run.json").measurements) >= 100 - 64
    journal.close()


@pytest.mark.parametrize("cut", [1, 5, 17])
def test_a_row_that_was_cut_off_is_left_out(tmp_path, cut):
    """Whole rows are read, the torn one at the end is not."""
    journal = Journal(tmp_path / "run.json", Result("run"))
    journal.add(ROWS)
    journal.close()
    content = (tmp_path / "run.json").read_bytes()
    (tmp_path / "run.json").write_bytes(content[:-cut])
    assert Result.load(tmp_path / "run.json").measurements == tuple(ROWS[:-1])


def test_a_damaged_row_is_refused(tmp_path):
    """A broken row in the midst is damage, and named."""
    header = Result("run").log_header()
    (tmp_path / "run.json").write_text(header + "[1, 2\n" + ROWS[0].log_line())
    with pytest.raises(FileFormatError, match="run.json: expected a row of JSON in each line"):
        Result.load(tmp_path / "run.json")


@pytest.mark.every_stack
def test_result_is_at_its_path_after_the_fit(stack, rng, tmp_path):
    """When the fit has ended, the whole result is where the log was."""
    path = tmp_path / "run.json"
    model = nets.mlp(stack.keras)
    model.compile("sgd", "sparse_categorical_crossentropy")
    profiler = kp.PrecisionProfiler(path=path, verbose=0)
    x, y = nets.classes(rng, 48)
    heard = []

    class Reading(stack.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            heard.append(len(Result.load(path).select("step_time_ms")))

    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[profiler, Reading()])
    assert heard == [0, 6, 12]
    assert Result.load(path) == profiler.result
    assert json.loads(path.read_text())["format"] == "keras_precision.result"


def test_a_path_that_cannot_be_written_is_refused_at_once(tmp_path):
    """The folder is checked when the profiler is created, not when the training has run."""
    with pytest.raises(DestinationError, match="does not exist"):
        kp.PrecisionProfiler(path=tmp_path / "none" / "run.json")


KILLED = """
import os, sys
import keras, numpy as np
import keras_precision as kp

class Killing(keras.callbacks.Callback):
    steps = 0
    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == int(sys.argv[2]):
            os.kill(os.getpid(), 9)

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
x = np.ones((3200, 4), "float32")
model.fit(x, x[:, 0], batch_size=8, verbose=0, callbacks=[kp.PrecisionProfiler(path=sys.argv[1]), Killing()])
"""


@pytest.mark.slow
@pytest.mark.parametrize("steps", [40, 333])
def test_killed_run_loses_at_most_64_steps(tmp_path, steps):
    """SIGKILL at any step leaves all steps but the last 64."""
    path = tmp_path / "run.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, path, str(steps)], env=environment, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    written = len(Result.load(path).select("step_time_ms"))
    assert steps - 64 <= written <= steps
