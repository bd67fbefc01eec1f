"""A run that is killed leaves a readable result."""

import json
import os
import signal
import subprocess
import sys
import warnings

import nets
import pytest

import keras_precision as kp
from keras_precision.callbacks.journal import Journal
from keras_precision.core.errors import DestinationError, PrecisionWarning
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
    journal.path.write_bytes(journal.path.read_bytes()[:-cut])
    assert Result.load(tmp_path / "run.json").measurements == tuple(ROWS[:-1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2] + b"\n",
        lambda line: line.replace(b"3.0", b"4.0"),
        lambda line: b"\xff\x00\n",
    ],
    ids=["short", "changed", "overwritten"],
)
def test_what_can_be_read_of_a_damaged_log_is_read(tmp_path, damage):
    """A damaged row is left out, one whose figure was changed too, and the result says so."""
    journal = Journal(tmp_path / "run.json", Result("run"))
    journal.add(ROWS)
    journal.close()
    lines = journal.path.read_bytes().splitlines(keepends=True)
    lines[3] = damage(lines[3])
    journal.path.write_bytes(b"".join(lines))
    result = Result.load(tmp_path / "run.json")
    assert result.measurements == (*ROWS[:2], *ROWS[3:])
    assert result.notes[1:] == ("1 damaged row of its log could not be read",)


def test_logs_without_checksums_are_still_read(tmp_path):
    """They were written until rows had one."""
    header = Result("run").log_header().replace('"version": 2', '"version": 1')
    rows = "".join(row.log_line().partition("\t")[0] + "\n" for row in ROWS)
    (tmp_path / "old.json").write_text(header + rows)
    assert Result.load(tmp_path / "old.json").measurements == tuple(ROWS)


def test_rows_after_a_short_write_are_kept(tmp_path, monkeypatch):
    """A disk that was full for a moment costs the rows of that moment."""
    journal = Journal(tmp_path / "run.json", Result("run"))
    write, takes = os.write, [30, 0]

    def full_soon(file, data):
        if len(takes) == 0:
            return write(file, data)
        if (size := takes.pop(0)) == 0:
            raise OSError(28, "No space left on device")
        return write(file, data[:size])

    monkeypatch.setattr(os, "write", full_soon)
    journal.add(ROWS[:2])
    with pytest.raises(OSError, match="No space left"):
        journal.flush()
    journal.add(ROWS[2:])
    journal.close()
    result = Result.load(tmp_path / "run.json")
    assert result.measurements == tuple(ROWS[2:])
    assert len(result.notes) == 2


def test_a_finished_result_is_read_before_a_partial_one(tmp_path):
    """Until the next run at that path has ended."""
    path = tmp_path / "run.json"
    Result("finished", tuple(ROWS)).save(path)
    journal = Journal(path, Result("next"))
    journal.close()
    assert Result.load(path).name == "finished"
    path.unlink()
    assert Result.load(path).name == "next"
    assert Result.load(journal.path).name == "next"


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
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]
    assert json.loads(path.read_text())["format"] == "keras_precision.result"


def test_a_path_that_cannot_be_written_is_refused_at_once(tmp_path):
    """The folder is checked when the profiler is created, not when the training has run."""
    with pytest.raises(DestinationError, match="does not exist"):
        kp.PrecisionProfiler(path=tmp_path / "none" / "run.json")


@pytest.mark.every_stack
def test_a_full_disk_costs_no_run(stack, rng, tmp_path, monkeypatch):
    """One warning, and the result is built and saved all the same."""
    model = nets.mlp(stack.keras)
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = nets.classes(rng, 48)
    profiler = kp.PrecisionProfiler(path=tmp_path / "run.json", verbose=0)
    header = Journal._write

    def full(journal, text):
        if text.startswith("{"):
            header(journal, text)
        else:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "_write", full)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PrecisionWarning)
        model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[profiler])
    (warning,) = [caught_one for caught_one in caught if caught_one.category is PrecisionWarning]
    assert "run.json.partial' could not be written: [Errno 28] No space left" in str(warning.message)
    assert len(Result.load(tmp_path / "run.json").select("step_time_ms")) >= 18


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
