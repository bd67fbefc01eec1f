"""The command line: ``keras-precision COMMAND``."""

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence

from keras_precision import __version__
from keras_precision.cli.command import CommandOutput
from keras_precision.cli.commands import COMMANDS
from keras_precision.core.errors import PrecisionError
from keras_precision.report.text import show

__all__ = ["build_parser", "main"]

_CODES = """\
exit codes:
  0    done, without a finding of severity error
  1    done, with a finding of severity error
  2    not done: the command line, a file or the data cannot be used
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process, and return its exit code: 0, 1 or 2, as ``--help`` explains."""
    options = build_parser().parse_args(arguments)
    # TensorFlow reads this variable when it is imported, and then prints no start-up messages.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        output: CommandOutput = options.run(options)
    except (PrecisionError, OSError) as error:
        print(f"keras-precision: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("keras-precision: interrupted", file=sys.stderr)
        return 130
    text = output.json() if getattr(options, "json", False) else output.text
    if text:
        show(text)
    return output.code


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
