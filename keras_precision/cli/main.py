"""The command line: ``keras-precision COMMAND``."""

import argparse
import contextlib
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from typing import NoReturn

from keras_precision import __version__
from keras_precision.cli.command import CommandOutput
from keras_precision.cli.commands import COMMANDS
from keras_precision.core.errors import PrecisionError
from keras_precision.core.printable import printable
from keras_precision.report.text import show

__all__ = ["build_parser", "main"]

_CODES = """\
exit codes:
  0    done, without a finding of severity error
  1    done, with a finding of severity error
  2    not done: the command line, a file, the data or the output cannot be used
  130  interrupted by Ctrl-C
  143  ended by SIGTERM
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process, and return its exit code, as ``--help`` explains."""
    options = build_parser().parse_args(arguments)
    # TensorFlow reads this variable when it is imported, and then prints no start-up messages.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _exit_on_sigterm():
            output: CommandOutput = options.run(options)
            text = output.json() if getattr(options, "json", False) else output.text
            if text:
                show(text)
            if sys.stdout is not None:
                sys.stdout.flush()  # here and not at the end of Python, where a full disk would be exit code 120
            return output.code
    except (PrecisionError, OSError) as error:
        _discard_output()
        print(f"keras-precision: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("keras-precision: interrupted", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """End with exit code 143 on SIGTERM, so that files and processes are cleaned up as after Ctrl-C.

    Only the command line does this: a library leaves signals to the program that uses it.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _discard_output() -> None:
    """Let what standard output does not take be lost, as Python would fail on it once more at its end.

    https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser, with a subparser per command."""
    parser = argparse.ArgumentParser(
        prog="keras-precision",
        description="Measure what lower precision does to Keras models, and export them safely.",
        epilog=_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"keras-precision {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        examples = [f"  keras-precision {example}" for example in command.examples]
        subparser = subparsers.add_parser(
            command.name,
            help=command.help,
            description=textwrap.fill(command.description, 100),
            epilog="\n".join(["examples:", *examples, "", _CODES]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.arguments(subparser)
        if command.json:
            subparser.add_argument("--json", action="store_true", help="print the result as JSON")
        subparser.set_defaults(run=command.run, parser=parser)
    return parser
