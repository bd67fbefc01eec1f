"""``keras-precision hardware``."""

import argparse

from keras_precision.cli.command import Command, CommandOutput

__all__ = ["COMMAND"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--measure", action="store_true", help="also time matrix products and convolutions: a few seconds"
    )


def _run(options: argparse.Namespace) -> CommandOutput:
    import keras_precision as kp
    from keras_precision.core.system.captured_output import capture_output

    with capture_output("hardware"):  # TensorFlow prints messages when it is imported
        result = kp.hardware(measure=options.measure)
    return CommandOutput.of(result, kp.render(result))


COMMAND = Command(
    name="hardware",
    help="which number formats this machine accelerates",
    description="Lists the number formats that this machine accelerates according to its flags, and, with --measure, the "
    "speed of the current Keras backend in them (KERAS_BACKEND selects it).",
    examples=("hardware", "hardware --measure --json"),
    arguments=_arguments,
    run=_run,
)
