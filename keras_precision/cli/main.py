"""The command line: ``keras-precision VERB``."""

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence

from keras_precision import __version__
from keras_precision.cli.verb import Answer
from keras_precision.cli.verbs import VERBS
from keras_precision.core.errors import PrecisionError
from keras_precision.report.text import show

__all__ = ["build_parser", "main"]

_CODES = """\
exit codes:
  0    done, and nothing found that makes the answer worthless
  1    done, with a finding of severity error
  2    not done: the command line, a file or the data cannot be used
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Args:
        arguments: The command line; None for the process's own.

    Returns:
        The exit code: 0; 1 where a finding of severity error came out; 2 where what was asked for
        cannot be done.
    """
    options = build_parser().parse_args(arguments)
    # The process is ours: TensorFlow's own variable keeps its start-up messages down.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        answer: Answer = options.run(options)
    except (PrecisionError, OSError) as error:
        print(f"keras-precision: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("keras-precision: interrupted", file=sys.stderr)
        return 130
    shown = answer.json() if getattr(options, "json", False) else answer.text
    if shown:
        show(shown)
    return answer.code


def build_parser() -> argparse.ArgumentParser:
    """Return what reads the command line.

    Returns:
        A parser with a subparser for each verb.
    """
    parser = argparse.ArgumentParser(
        prog="keras-precision",
        description="See what lower precision does to Keras models, and ship it safely.",
        epilog=_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"keras-precision {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        own = verbs.add_parser(
            verb.name,
            help=verb.help,
            description=textwrap.fill(verb.description, 100),
            epilog="\n".join(["examples:", *(f"  keras-precision {example}" for example in verb.examples), "", _CODES]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.arguments(own)
        if verb.json:
            own.add_argument("--json", action="store_true", help="print the answer as JSON")
        own.set_defaults(run=verb.run, parser=parser)
    return parser
