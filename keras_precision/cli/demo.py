"""``keras-precision demo``."""

import argparse

from keras_precision.cli.verb import Answer, Verb

__all__ = ["VERB"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", default="keras-precision-demo", metavar="FOLDER", help="where files go (%(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=8, metavar="N", help="epochs of each run (%(default)s)")


def _run(options: argparse.Namespace) -> Answer:
    from keras_precision.cli.demo_run import run

    run(options.output, epochs=options.epochs)
    return Answer()


VERB = Verb(
    name="demo",
    help="train, export and check a small net on real data",
    description="Trains a small net on handwritten digits in three precisions, exports it to TensorFlow Lite "
    "in three, runs every file on the whole test set, and says what the numbers mean on this machine.",
    examples=("demo --output my-demo",),
    arguments=_arguments,
    run=_run,
    json=False,
)
