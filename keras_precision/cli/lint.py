"""``keras-precision lint``."""

import argparse

from keras_precision.cli.diagnose import answer_of
from keras_precision.cli.verb import Answer, Verb

__all__ = ["VERB"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="FILE", help="a .keras, .h5 or .hdf5 file")
    parser.add_argument("--unsafe", action="store_true", help="run Python code that the model file carries (Lambda)")


def _run(options: argparse.Namespace) -> Answer:
    import keras_precision as kp

    return answer_of(kp.lint(kp.load_model(options.model, unsafe=options.unsafe)))


VERB = Verb(
    name="lint",
    help="read a model's graph for what goes wrong in low precision",
    description="Traces a model, without data, and finds sums in half precision, softmax without its maximum subtracted, "
    "an epsilon that is 0 in float16, and more. The exit code is 1 where a finding is an error.",
    examples=("lint model.keras", "lint model.keras --json"),
    arguments=_arguments,
    run=_run,
)
