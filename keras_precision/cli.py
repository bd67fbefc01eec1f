"""The command line: ``keras-precision VERB``, one short handler a verb."""

import argparse
import os
import sys
from collections.abc import Sequence

from keras_precision import __version__
from keras_precision.errors import PrecisionError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Args:
        arguments: The command line; None for the process's own.

    Returns:
        The exit code: 0, or 2 where what was asked for cannot be done.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.handler(options))
    except (PrecisionError, FileNotFoundError) as error:
        print(f"keras-precision: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("keras-precision: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-precision", description="See what lower precision does to Keras models, and ship it safely."
    )
    parser.add_argument("--version", action="version", version=f"keras-precision {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    demo = verbs.add_parser(
        "demo",
        help="train, export and check a small net on real data",
        description="Trains a small net on handwritten digits in three precisions, exports it to TensorFlow Lite "
        "in three, runs every file on the whole test set, and says what the numbers mean on this machine.",
        epilog="example: keras-precision demo --output my-demo",
    )
    demo.add_argument("--output", default="keras-precision-demo", metavar="FOLDER", help="where files go (%(default)s)")
    demo.add_argument("--epochs", type=int, default=8, metavar="N", help="epochs of each run (%(default)s)")
    demo.set_defaults(handler=_demo)
    return parser


def _demo(options: argparse.Namespace) -> int:
    # The process is ours: TensorFlow's own variable keeps its start-up messages down.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from keras_precision.demo import run

    run(options.output, epochs=options.epochs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
