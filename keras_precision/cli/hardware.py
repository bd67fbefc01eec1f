"""``keras-precision hardware``."""

import argparse

from keras_precision.cli.verb import Answer, Verb

__all__ = ["VERB"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--measure", action="store_true", help="time matrix products and convolutions in each, too: a few seconds"
    )


def _run(options: argparse.Namespace) -> Answer:
    import keras_precision as kp
    from keras_precision.core.system.captured_output import captured

    with captured("hardware"):  # what TensorFlow says when it is imported
        found = kp.hardware(measure=options.measure)
    return Answer.of(found, kp.render(found))


VERB = Verb(
    name="hardware",
    help="which number formats this machine accelerates",
    description="Says which number formats this machine accelerates by its flags, and, with --measure, what the "
    "current Keras backend makes of them (KERAS_BACKEND chooses it).",
    examples=("hardware", "hardware --measure --json"),
    arguments=_arguments,
    run=_run,
)
