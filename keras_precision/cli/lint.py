"""``keras-precision lint``."""

import argparse

from keras_precision.cli.command import Command, CommandOutput
from keras_precision.cli.diagnose import findings_output

__all__ = ["COMMAND"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="FILE", help="a .keras, .h5 or .hdf5 file")
    parser.add_argument("--unsafe", action="store_true", help="run Python code in the model file (Lambda)")


def _run(options: argparse.Namespace) -> CommandOutput:
    import keras_precision as kp

    return findings_output(kp.lint(kp.load_model(options.model, unsafe=options.unsafe)))


COMMAND = Command(
    name="lint",
    help="check a model's graph for problems in low precision",
    description="Traces a model without data, and finds sums in half precision, softmax without subtraction of the maximum, "
    "an epsilon that is 0 in float16, and more. The exit code is 1 if a finding is an error.",
    examples=("lint model.keras", "lint model.keras --json"),
    arguments=_arguments,
    run=_run,
)
