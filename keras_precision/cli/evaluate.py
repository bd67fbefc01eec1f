"""``keras-precision evaluate``."""

import argparse

from keras_precision.cli.data import add_data, read_data
from keras_precision.cli.verb import Answer, Verb

__all__ = ["VERB"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="FILE", help="a .keras, .h5, .hdf5 or .tflite file")
    add_data(parser, "--data", labels=True, required=True, help="the samples and labels to score it on")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="metrics of Keras (accuracy)")
    parser.add_argument(
        "--reference", metavar="FILE", help="the model that the file was made from: adds how often both agree"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="samples a call of a Keras model (32)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="interpreters of a .tflite file side by side (one a core)"
    )
    parser.add_argument("--unsafe", action="store_true", help="run Python code that the model file carries (Lambda)")


def _run(options: argparse.Namespace) -> Answer:
    import keras_precision as kp
    from keras_precision.report.tables.figures import figures_table
    from keras_precision.report.text import draw

    x, y = read_data(options.data, options.x, options.y)
    result = kp.evaluate(
        options.model,
        x,
        y,
        options.metrics,
        batch_size=options.batch_size,
        reference=options.reference,
        threads=options.threads,
        unsafe=options.unsafe,
    )
    return Answer.of(result, draw(figures_table(result)))


VERB = Verb(
    name="evaluate",
    help="score a model file on labelled samples",
    description="Scores a model file on labelled samples; with --reference, tells how often it answers as another does.",
    examples=(
        "evaluate model.tflite --data test.npz --reference model.keras",
        "evaluate model.keras --data housing.npz --metrics mae mse --y price",
    ),
    arguments=_arguments,
    run=_run,
)
