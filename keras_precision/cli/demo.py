"""``keras-precision demo``."""

import argparse

from keras_precision.cli.command import Command, CommandOutput

__all__ = ["COMMAND"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", default="keras-precision-demo", metavar="FOLDER", help="the folder for all files (%(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=8, metavar="N", help="epochs per run (%(default)s)")


def _run(options: argparse.Namespace) -> CommandOutput:
    from keras_precision.cli.demo_run import run

    run(options.output, epochs=options.epochs)
    return CommandOutput()


COMMAND = Command(
    name="demo",
    help="train, export and validate a small network on real data",
    description="Trains a small network on handwritten digits in three precisions, exports it to TensorFlow Lite "
    "in three, evaluates every file on the whole test set, and explains the numbers on this machine.",
    examples=("demo --output my-demo",),
    arguments=_arguments,
    run=_run,
    json=False,
)
