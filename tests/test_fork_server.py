"""Calls in forks of a process that has imported what they need."""

import contextlib
import os
import select
import signal
import sys
from pathlib import Path

import pytest

from keras_precision.core.system import fork_server
from keras_precision.core.system.fork_server import ForkServer

MODULE = """
import os, signal, sys
from pathlib import Path

IMPORTED_BY = os.getpid()
calls = 0

def describe(path):
    global calls
    calls += 1
    words = (IMPORTED_BY, os.getpid(), calls, os.environ.get("SEEN"), os.getcwd(), sys.path[0])
    Path(path).write_text("\\n".join(map(str, words)))

def fail(text):
    raise ValueError(text)

def crash(text):
    os.abort()

def wait(path):
    with open(path, "w") as fifo:
        print(os.getpid(), file=fifo)
    signal.pause()
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of a module on the module path, which is ended after the test."""
    (tmp_path / "served.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    server = ForkServer(("served",), {"SEEN": "set"})
    yield server
    server.close()


def described(server, path):
    """What a call says of its process: who imported, number, calls, variable, folder, first entry of the path."""
    assert server.call("served:describe", str(path), 60).ended_by == ""
    return Path(path).read_text().splitlines()


def test_a_call_is_in_a_process_of_its_own_in_the_surroundings_of_now(server, tmp_path, monkeypatch):
    """Modules are imported once, and again where the environment, the module path or the folder has changed."""
    (tmp_path / "elsewhere").mkdir()
    first, second = described(server, tmp_path / "1"), described(server, tmp_path / "2")
    assert first[0] == second[0] != first[1] != second[1]
    assert first[2:] == second[2:] == ["1", "set", os.getcwd(), str(tmp_path)]
    importers = {first[0]}
    changes = (
        lambda context: context.setenv("OTHER", "1"),
        lambda context: context.chdir(tmp_path / "elsewhere"),
        lambda context: context.setattr(sys, "path", [*sys.path, str(tmp_path / "elsewhere")]),
    )
    for change in changes:
        with monkeypatch.context() as context:
            change(context)
            changed = described(server, tmp_path / "3")
            assert changed[0] not in importers
            assert changed[4] == os.getcwd()
            importers.add(changed[0])


def test_a_call_that_fails_says_so_and_the_next_one_runs(server, tmp_path):
    """An exception has its traceback; a crash ends its own process alone."""
    failed = server.call("served:fail", "no", 60)
    assert failed.code == 1
    assert failed.errors.endswith("ValueError: no\n")
    assert server.call("served:crash", "", 60).ended_by == "ended with signal SIGABRT"
    assert described(server, tmp_path / "1")[2] == "1"


def test_a_process_that_has_ended_is_started_again(server, tmp_path):
    """It ends by itself when it is idle, by the signal of an alarm."""
    importer = int(described(server, tmp_path / "1")[0])
    os.kill(importer, signal.SIGALRM)
    assert int(described(server, tmp_path / "2")[0]) != importer


def test_a_call_that_takes_too_long_is_ended(server, tmp_path):
    """So is its process: the end of its pipe shows it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert server.call("served:wait", str(fifo), 3).code is None
    with os.fdopen(reader) as lines:
        waiting = int(lines.readline())
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        assert select.select([os.pidfd_open(waiting)], [], [], 60)[0]


def test_a_module_that_is_missing_is_a_failure(tmp_path):
    """The process ends before it replies."""
    server = ForkServer(("no_such_module_anywhere",), {})
    assert server.call("os:listdir", str(tmp_path), 60).ended_by == "ended with exit code 1"


def test_where_forks_are_not_safe_each_call_starts_a_python(server, tmp_path, monkeypatch):
    """With the same environment, and the same outcome."""
    monkeypatch.setattr(fork_server, "_CAN_FORK", False)
    first, second = described(server, tmp_path / "1"), described(server, tmp_path / "2")
    assert first[0] == first[1] != second[0] == second[1]
    assert first[2:4] == ["1", "set"]
    assert server.call("served:fail", "no", 60).errors.endswith("ValueError: no\n")
