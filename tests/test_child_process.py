"""Child processes: they import what their parent imports, nothing else of the current folder, and may crash."""

import importlib
import os
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import keras_precision as kp
from keras_precision._adapters.model_view import ModelView
from keras_precision.core.errors import ExportError, InputError
from keras_precision.core.system import parent_watch
from keras_precision.core.system.child_process import (
    CompletedChild,
    child_environment,
    exit_reason,
    python_command,
    run_python,
)
from keras_precision.experiments.worker import Worker, serialize
from keras_precision.quantization import tensorflow_process
from keras_precision.quantization.conversion import convert
from keras_precision.quantization.tensorflow_process import call_in_process
from keras_precision.runtimes.tflite.sandbox import Child

PRINT = "import importlib, sys; print(*(importlib.import_module(name).__file__ for name in sys.argv[1:]), sep='\\n')"

MODEL = """
import keras
import numpy as np

@keras.saving.register_keras_serializable("mine")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x

def build():
    model = keras.Sequential([keras.Input((4,)), Doubled(), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    return model

def batch(count):
    return np.zeros((count, 4), "float32"), np.zeros((count, 2), "float32")
"""


class Folders(NamedTuple):
    """Where modules lie.

    Attributes:
        current: The current folder: it has a ``select.py``, and is not on the module path.
        path: A folder on the module path: it has an ``on_the_path.py``, and a ``model_on_the_path.py``.
        marker: The file that the planted ``select.py`` writes where it is imported.
    """

    current: Path
    path: Path
    marker: Path


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """A current folder with a planted module, beside a folder that the parent imports from."""
    folders = Folders(tmp_path / "current", tmp_path / "path", tmp_path / "marker")
    folders.current.mkdir()
    folders.path.mkdir()
    planted = f"open({str(folders.marker)!r}, 'w').close()\nraise ImportError('this is the planted select.py')\n"
    (folders.current / "select.py").write_text(planted)
    (folders.path / "on_the_path.py").write_text("")
    (folders.path / "model_on_the_path.py").write_text(MODEL)
    monkeypatch.chdir(folders.current)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folders.path)])
    assert str(folders.current) not in sys.path
    return folders


@pytest.fixture
def model(folders: Folders) -> Any:
    """A model with a layer of a module in the folder that the parent imports from."""
    importlib.invalidate_caches()
    yield importlib.import_module("model_on_the_path").build()
    del sys.modules["model_on_the_path"]


class Importer:
    """What a worker serves here."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def file_of(self, module: str) -> str:
        import importlib

        return str(importlib.import_module(module).__file__)


def files_of(outcome: CompletedChild) -> list[str]:
    """Return the files of the modules that a child has imported."""
    assert outcome.code == 0, outcome.errors
    return outcome.output.splitlines()


def test_the_child_that_reads_tflite_files_imports_from_the_parents_path_alone(folders: Folders) -> None:
    """It finds a module of the parent's path, and Python's own select."""
    program = (
        "import importlib; from keras_precision.runtimes.tflite.sandbox import serve\n"
        "serve(lambda name: importlib.import_module(name).__file__)"
    )
    child = Child(program)
    try:
        assert child.ask("on_the_path", 60) == str(folders.path / "on_the_path.py")
        assert Path(child.ask("select", 60)).parent != folders.current
    finally:
        child.close()
    assert not folders.marker.exists()


def test_a_worker_imports_from_the_parents_path_alone(folders: Folders) -> None:
    """It finds a module of the parent's path, and Python's own select."""
    with Worker(serialize(Importer, "what is served"), "the run") as worker:
        assert worker.ask("file_of", "on_the_path") == str(folders.path / "on_the_path.py")
        assert Path(worker.ask("file_of", "select")).parent != folders.current
    assert not folders.marker.exists()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_python_that_runs_to_its_end_imports_from_the_parents_path_alone(
    folders: Folders, *, elsewhere: bool
) -> None:
    """The same, wherever it runs: in the parent's folder, or in another that holds a planted module."""
    folder = None
    if elsewhere:
        os.chdir(folders.path)
        folder = str(folders.current)
    mine, standard = files_of(run_python(["-c", PRINT, "on_the_path", "select"], folder=folder))
    assert mine == str(folders.path / "on_the_path.py")
    assert Path(standard).parent != folders.current
    assert not folders.marker.exists()


def test_the_child_of_a_child_imports_from_the_same_path(folders: Folders) -> None:
    """What a child starts has the module path of the first parent, too."""
    inner = f"run_python(['-c', {PRINT!r}, 'on_the_path', 'select'])"
    program = f"from keras_precision.core.system.child_process import run_python; print({inner}.output)"
    mine, standard, *_ = files_of(run_python(["-c", program]))
    assert mine == str(folders.path / "on_the_path.py")
    assert Path(standard).parent != folders.current
    assert not folders.marker.exists()


def test_the_child_that_converts_a_float_model_imports_from_the_parents_path_alone(
    folders: Folders, model: Any
) -> None:
    """A layer of a module on the parent's path is converted, whatever lies in the current folder."""
    converted = call_in_process(convert, ModelView.of(model), "float32")
    assert converted.content[4:8] == b"TFL3"
    assert not folders.marker.exists()


@pytest.mark.slow
def test_the_trials_of_a_batch_size_import_from_the_parents_path_alone(folders: Folders) -> None:
    """Model and batches of a module on the parent's path are tried, whatever lies in the current folder."""
    build, batch = "model_on_the_path:build", "model_on_the_path:batch"
    result = kp.find_max_batch_size(build, batch, ["float32"], max_batch=1, verbose=False)
    assert result.value("largest_batch") == 1
    assert not folders.marker.exists()


def test_a_benchmark_on_the_command_line_imports_nothing_from_the_current_folder(folders: Folders, model: Any) -> None:
    """A console script has the current folder on no path: neither it nor its children import what lies there."""
    kp.export_tflite(model, "model.tflite", "float32")
    program = "import sys; from keras_precision.cli import main; sys.exit(main())"  # as the installed script has it
    command = [sys.executable, "-P", "-c", program, "benchmark", "model.tflite", "--warmup", "1", "--seconds", "0"]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not folders.marker.exists()


@pytest.mark.parametrize("entry", ["", "."])
def test_a_parent_that_imports_from_its_current_folder_has_children_that_do(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    """An empty or a relative entry, as at a prompt or in a notebook, is the parent's current folder, not the child's."""
    (folders.current / "beside_the_notebook.py").write_text("")
    (folders.path / "select.py").write_text("raise ImportError('planted in the folder of the child')")
    (folders.current / "select.py").unlink()
    monkeypatch.setattr(sys, "path", [entry, *(each for each in sys.path if each != str(folders.path))])
    names = ["beside_the_notebook", "select"]
    mine, standard = files_of(run_python(["-c", PRINT, *names], folder=str(folders.path)))
    assert mine == str(folders.current / "beside_the_notebook.py")
    assert Path(standard).parent != folders.path


def test_the_module_path_of_a_child_is_absolute(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in it depends on where the child runs: no empty or relative entry, and no path with a colon in it."""
    lib = str(folders.path)
    monkeypatch.setattr(sys, "path", [lib, "", "sub", lib, "/with:colon", folders.current, b"/bytes"])
    there = [lib, str(folders.current), str(folders.current / "sub")]
    assert child_environment()["PYTHONPATH"].split(os.pathsep) == there


def test_a_current_folder_that_was_removed_is_on_no_path(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python passes over relative entries there, and so do children."""
    gone = folders.path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "path", ["", "sub", str(folders.path)])
    assert child_environment()["PYTHONPATH"] == str(folders.path)


def test_a_current_folder_with_a_colon_in_its_name_is_on_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PYTHONPATH cannot say it, and its second half would be a relative folder."""
    odd = tmp_path / "a:b"
    odd.mkdir()
    monkeypatch.chdir(odd)
    monkeypatch.setattr(sys, "path", [""])
    assert child_environment()["PYTHONPATH"] == ""


def test_more_variables_reach_a_child() -> None:
    """Beside those of the parent, over which they win."""
    program = "import os; print(os.environ['MINE'], os.environ['OTHER'])"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINE", "parent")
        patch.setenv("OTHER", "parent")
        outcome = run_python(["-c", program], variables={"MINE": "child"})
    assert outcome.output == "child parent\n"


def test_how_a_child_ended_is_an_outcome(tmp_path: Path) -> None:
    """An exit code, a signal, an end that does not come: each has its words, and the last child is ended."""
    program = "import threading; threading.Event().wait()"
    endless = run_python(["-c", program], folder=str(tmp_path), timeout_s=0.5)
    assert (endless.code, endless.ended_by) == (None, "gave no answer in time")
    assert run_python(["-c", "import os; os.abort()"]).ended_by == "ended with signal SIGABRT"
    assert run_python(["-c", "raise SystemExit(3)"]).ended_by == "ended with exit code 3"
    assert run_python(["-c", ""]).ended_by == ""
    assert exit_reason(-(signal.SIGRTMIN + 1)) == f"signal {signal.SIGRTMIN + 1}"


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (
            CompletedChild(None, "", ""),
            "the model 'mlp' to be converted within 1800 s. Received: a conversion that takes longer",
        ),
        (CompletedChild(1, "", "Traceback\nValueError: no\n"), "with the TensorFlow backend. Received: ValueError: no"),
        (CompletedChild(3, "", ""), "with the TensorFlow backend. Received: exit code 3"),
    ],
)
def test_a_float_conversion_that_fails_is_told_and_its_pickle_was_private(
    monkeypatch: pytest.MonkeyPatch, outcome: CompletedChild, message: str
) -> None:
    """The error has the child's last line; nobody else could read or write the pickle, nor the folder that it was in."""
    import keras
    import nets

    model, modes = nets.mlp(keras), {}

    def call(function: str, argument: str, timeout_s: float) -> CompletedChild:
        folder = Path(argument)
        modes.update(folder=stat.S_IMODE(folder.stat().st_mode), call=stat.S_IMODE((folder / "call").stat().st_mode))
        return outcome

    monkeypatch.setattr(tensorflow_process._TENSORFLOW, "call", call)
    before = os.umask(0)  # whatever the user lets others do
    try:
        with pytest.raises(ExportError, match=message):
            call_in_process(convert, ModelView.of(model), "float32")
    finally:
        os.umask(before)
    assert modes == {"folder": 0o700, "call": 0o600}


def test_an_error_of_this_package_crosses_the_process_as_it_is(model: Any) -> None:
    """What the function raises in the other process has its own type and message here."""
    with pytest.raises(InputError, match=f"Expected a path. Received: '{model.name}'"):
        call_in_process(refuse, ModelView.of(model))


def refuse(model: ModelView) -> None:
    """Raise an error of this package, in the child."""
    raise InputError(f"Expected a path. Received: '{model.name}'.")


def test_a_model_that_cannot_be_saved_cannot_be_converted_elsewhere() -> None:
    """A layer without a configuration is named, with what it lacks."""
    import keras

    class Scaled(keras.layers.Layer):
        def __init__(self, table: Any) -> None:
            super().__init__()
            self.table = table

        def call(self, inputs: Any) -> Any:
            return inputs * 2.0

    model = keras.Sequential([keras.Input((3,)), Scaled(object())], name="unsaved")
    with pytest.raises(ExportError, match=r"Received: 'unsaved', of which saving failed .*get_config"):
        call_in_process(convert, ModelView.of(model))


def test_only_one_place_starts_python() -> None:
    """Every child of the package is started with the command of this module; a user's script in a search is the user's."""
    package = Path(kp.__file__).parent
    users = {
        str(path.relative_to(package)) for path in package.rglob("*.py") if "sys.executable" in path.read_text("utf-8")
    }
    assert users == {"core/system/child_process.py", "core/system/parent_watch.py", "search/workers.py"}


_WAITING = (
    "import os, signal, sys; fifo = open(sys.argv[1], 'w'); print(os.getpid(), file=fifo, flush=True); signal.pause()"
)
"""A child that writes its number, and then waits without reading its input."""

_PARENTS = {
    "run_python": "from keras_precision.core.system.child_process import run_python; run_python(['-c', child, fifo])",
    "ChildProcess": (
        "from keras_precision.core.system.child_process import ChildProcess; import signal; "
        "process = ChildProcess(f'import sys; sys.argv = [0, {fifo!r}]; ' + child); signal.pause()"
    ),
    "run_workers": (
        "from keras_precision.search.workers import run_workers; run_workers([sys.executable, '-c', child, fifo], 1)"
    ),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("name", _PARENTS)
def test_children_end_with_their_parent(name: str, number: signal.Signals, tmp_path: Path) -> None:
    """However a parent ends, none of its children goes on, even one that does not look at its input."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = f"import sys; child, fifo = {_WAITING!r}, {str(fifo)!r}; {_PARENTS[name]}"
    with subprocess.Popen(python_command("-c", program), env=child_environment()) as parent, fifo.open() as opened:
        numbers = [int(opened.readline()) for _ in range(2 if name == "run_workers" else 1)]
        parent.send_signal(number)
        ended = bool(select.select([opened], [], [], 60)[0])  # the end of the file: no child has it open any more
    for child in () if ended else numbers:
        os.kill(child, signal.SIGKILL)
    assert ended
    assert parent.returncode == -number


def test_children_are_watched_over_by_a_new_watcher_after_the_first_was_killed() -> None:
    """A watcher is not needed to run a child, and its end is no end of the watch."""
    watch = parent_watch._Watch()
    with subprocess.Popen(python_command("-c", "import signal; signal.pause()")) as first:
        watch.add(first.pid)
        assert watch._watcher is not None
        broken = watch._watcher
        broken._process.kill()
        broken._process.wait()
        with subprocess.Popen(python_command("-c", "import signal; signal.pause()")) as second:
            watch.add(second.pid)
            assert watch._watcher is not broken
            watch.close()  # as at the end of this process
            assert [first.wait(60), second.wait(60)] == [-signal.SIGKILL] * 2
