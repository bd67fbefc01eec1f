"""Worker: a process that answers, and whose end harms nobody."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from keras_precision.core.errors import DataError, InputError, WorkerError
from keras_precision.experiments.worker import Worker, serialize


class Served:
    """What a child serves here: it imports no Keras."""

    def __init__(self, channel):
        self.channel = channel

    def double(self, value):
        return 2 * value

    def pid(self):
        return os.getpid()

    def variable(self, name):
        return os.environ.get(name)

    def fail(self):
        raise KeyError("lost")

    def refuse(self):
        raise DataError("Expected data. Received: none.")

    def talk(self):
        print("to standard output")
        os.write(1, b"to the descriptor\n")
        return "answered"

    def die(self, code):
        print("about to die", file=sys.stderr, flush=True)
        os._exit(code)

    def killed(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def never(self):
        threading.Event().wait()


def worker(**options) -> Worker:
    """Return a worker; what it serves travels by value, as from a notebook."""
    return Worker(serialize(Served, "what is served"), "the run", **options)


def test_it_answers_what_it_is_asked() -> None:
    """Methods are called in a process of its own, whatever is printed there."""
    with worker(environment={"MINE": "yes"}) as child:
        assert child.ask("double", 21) == 42
        assert child.ask("pid") != os.getpid()
        assert child.ask("variable", "MINE") == "yes"
        assert child.ask("variable", "TF_CPP_MIN_LOG_LEVEL") == os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3")
        assert child.ask("talk") == "answered"
        assert child.ask("double", 1) == 2


def test_it_fails_without_dying() -> None:
    """Our own exceptions arrive as they are, others with their traceback, and the child goes on."""
    with worker() as child:
        with pytest.raises(DataError, match="Expected data. Received: none."):
            child.ask("refuse")
        with pytest.raises(WorkerError, match="(?s)'the run' to run. Received: KeyError: 'lost'.*raise KeyError"):
            child.ask("fail")
        assert child.ask("double", 2) == 4


@pytest.mark.parametrize(
    ("method", "args", "message"),
    [
        ("die", (3,), "(?s)'the run' to run. Received: its process ended with exit code 3.*about to die"),
        ("killed", (), "ended with signal SIGKILL. It may have run out of memory: try a smaller batch."),
    ],
)
def test_a_child_that_dies_leaves_its_last_words(method: str, args: tuple[int, ...], message: str) -> None:
    """The message says how it ended, and has the end of its log."""
    with worker() as child, pytest.raises(WorkerError, match=message):
        child.ask(method, *args)


def test_a_child_that_takes_too_long_is_ended() -> None:
    """After the deadline it is gone, and the message says so."""
    with worker() as child:
        pid = child.ask("pid")
        with pytest.raises(WorkerError, match="'the run' to end within its time. Received: no reply"):
            child.ask("never", deadline=time.monotonic() + 0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_cannot_travel_is_refused() -> None:
    """A lock in a function's closure is named, with what to do."""
    lock = threading.Lock()
    with pytest.raises(
        InputError, match="a build that can be sent to another process. Received: one that cannot be pickled"
    ):
        serialize(lambda: lock, "a build")


def test_what_cannot_be_imported_in_the_child_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is there for the parent alone is named by the child."""
    (tmp_path / "only_here.py").write_text("def serve(channel):\n    return channel\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    serialized = serialize(only_here.serve, "what is served")
    (tmp_path / "only_here.py").unlink()
    with pytest.raises(WorkerError, match="No module named 'only_here'"):
        Worker(serialized, "the run")


def test_it_ends_with_its_parent() -> None:
    """A parent that is killed leaves no child behind, not even one that is at work."""
    script = (
        "import sys, threading\n"
        "from keras_precision.experiments.worker import Worker, serialize\n"
        "def serve(channel):\n"
        "    import os, threading\n"
        "    class Served:\n"
        "        def pid(self): return os.getpid()\n"
        "        def never(self): threading.Event().wait()\n"
        "    return Served()\n"
        "child = Worker(serialize(serve, 'it'), 'it')\n"
        "print(child.ask('pid'), flush=True)\n"
        "child.ask('never')\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]:
            return
        threading.Event().wait(0.1)
    pytest.fail("the child outlived its parent")
