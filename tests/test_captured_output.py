"""Chatter: what libraries write is caught, wherever they write it, and then everything is as before."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from robustness.interruptions import count_lines, interrupt_at

from keras_precision.core.system.captured_output import capture_output

LOGGER = "keras_precision"


@pytest.fixture(autouse=True)
def _at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger=LOGGER)


@pytest.fixture
def speaker() -> logging.Logger:
    """A library's logger that speaks to nobody else."""
    logger = logging.Logger("a library")
    logger.propagate = False
    return logger


def caught(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what arrived at our logger, all of it at DEBUG."""
    assert all(record.levelno == logging.DEBUG for record in caplog.records)
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


def log_with_a_new_handler() -> None:
    """Log as a library does that sets up its handler when it is first used."""
    logger = logging.Logger("a library")
    logger.addHandler(logging.StreamHandler())
    logger.warning("hello")


@pytest.mark.parametrize(
    "speak",
    [
        lambda: print("hello"),
        lambda: print("hello", file=sys.stderr),
        lambda: os.write(1, b"hello\n"),
        lambda: os.write(2, b"hello\n"),
        lambda: subprocess.run([sys.executable, "-S", "-c", "print('hello')"], check=True),
        log_with_a_new_handler,
    ],
    ids=["print", "stderr", "descriptor 1", "descriptor 2", "child", "logging"],
)
def test_whatever_speaks_is_caught(
    speak: Callable[[], object], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A line goes to the log with its source, and nothing to the output."""
    with capture_output("converter"):
        speak()
    assert caught(caplog) == ["converter: hello"]
    assert capfd.readouterr() == ("", "")


def test_lines_keep_their_order(caplog: pytest.LogCaptureFixture) -> None:
    """Lines of Python and of C++ are logged one by one, in the order in which they were written."""
    with capture_output("converter"):
        print("first")
        os.write(2, b"second\nthird\n")
        print("fourth", end="")
    assert caught(caplog) == [f"converter: {word}" for word in ("first", "second", "third", "fourth")]


def test_bytes_that_are_no_text_are_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that are no UTF-8 do no harm."""
    with capture_output("converter"):
        os.write(1, b"caf\xe9\n")
    assert caught(caplog) == ["converter: caf\ufffd"]


def test_silence_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing is written, nothing is logged."""
    with capture_output("converter"):
        pass
    assert caught(caplog) == []


def test_inner_capture_goes_first(caplog: pytest.LogCaptureFixture) -> None:
    """Captures can be nested: each catches its own lines."""
    with capture_output("outer"):
        print("a")
        with capture_output("inner"):
            print("b")
        print("c")
    assert caught(caplog) == ["inner: b", "outer: a", "outer: c"]


def test_everything_is_restored_after_an_error(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """After an exception the streams are those from before, and what was said is in the log."""
    before = sys.stdout, sys.stderr

    def convert() -> None:
        with capture_output("converter"):
            print("said before")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        convert()
    assert (sys.stdout, sys.stderr) == before
    os.write(1, b"to descriptor 1\n")
    os.write(2, b"to descriptor 2\n")
    assert capfd.readouterr() == ("to descriptor 1\n", "to descriptor 2\n")
    assert caught(caplog) == ["converter: said before"]


def test_a_handler_made_inside_works_afterwards(
    speaker: logging.Logger, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A library's handler that was made while its output was caught speaks to the true stream later."""
    with capture_output("converter"):
        speaker.addHandler(logging.StreamHandler())
        speaker.warning("inside")
    speaker.warning("outside")
    assert caught(caplog) == ["converter: inside"]
    assert capfd.readouterr() == ("", "outside\n")


def test_a_handler_made_before_is_caught_by_its_descriptor(
    speaker: logging.Logger, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A stream that someone kept leads to a descriptor, and is caught there."""
    with open(os.dup(2), "w", buffering=1) as kept, open(2, "w", buffering=1, closefd=False) as shared:
        speaker.addHandler(logging.StreamHandler(shared))
        with capture_output("converter"):
            speaker.warning("inside")
            kept.write("to a descriptor of its own\n")
    assert caught(caplog) == ["converter: inside"]
    assert capfd.readouterr() == ("", "to a descriptor of its own\n")


def test_what_was_said_before_is_not_caught(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Text that waits in a buffer goes where it was written to."""
    with open(1, "w", closefd=False) as buffered:
        monkeypatch.setattr(sys, "stdout", buffered)
        print("before")
        with capture_output("converter"):
            print("inside")
    assert caught(caplog) == ["converter: inside"]
    assert capfd.readouterr().out == "before\n"


def test_missing_streams_are_no_obstacle(
    speaker: logging.Logger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process without standard streams can capture too, and its late handlers are silent."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with capture_output("converter"):
        print("inside")
        speaker.addHandler(logging.StreamHandler())
    speaker.warning("outside")
    assert (sys.stdout, sys.stderr) == (None, None)
    assert caught(caplog) == ["converter: inside"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an interrupted close
def test_an_interruption_at_any_line_restores_the_streams(capfd: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C may come between the redirection of one stream and of the other, before the block and after it."""

    def act() -> None:
        with capture_output("library"):
            print("captured")

    for number in range(1, count_lines(act) + 1):
        before = sys.stdout, sys.stderr, os.fstat(1).st_ino, os.fstat(2).st_ino
        interrupt_at(number, act)
        assert (sys.stdout, sys.stderr, os.fstat(1).st_ino, os.fstat(2).st_ino) == before, number
