"""``keras-precision benchmark``."""

import argparse

from keras_precision.cli.data import add_data, read_data
from keras_precision.cli.verb import Answer, Verb

__all__ = ["VERB"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="FILE", help="a .keras, .h5, .hdf5 or .tflite file")
    add_data(parser, "--data", labels=False, required=False, help="the samples to run in turn (zeros)")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="samples a call of a Keras model (1)")
    parser.add_argument("--warmup", type=int, default=10, metavar="N", help="calls before timing begins (10)")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="seconds timed at the least (1)")
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="threads a call of a .tflite file may use (1)"
    )
    parser.add_argument("--per-operator", action="store_true", help="time each operator of a .tflite file, too")
    parser.add_argument("--unsafe", action="store_true", help="run Python code that the model file carries (Lambda)")


def _run(options: argparse.Namespace) -> Answer:
    import keras_precision as kp
    from keras_precision.report.tables.figures import figures_table
    from keras_precision.report.text import draw

    x = read_data(options.data, options.x, None)[0] if options.data else None
    result = kp.benchmark(
        options.model,
        x,
        batch_size=options.batch_size,
        threads=options.threads,
        warmup=options.warmup,
        min_seconds=options.seconds,
        per_operator=options.per_operator,
        unsafe=options.unsafe,
    )
    return Answer.of(result, draw(figures_table(result)))


VERB = Verb(
    name="benchmark",
    help="time the answers of a model file",
    description="Times the answers of a model file: median and 95th percentile of single calls, warm-up left out.",
    examples=(
        "benchmark model.tflite --threads 2 --per-operator",
        "benchmark model.keras --data test.npz --batch-size 32",
    ),
    arguments=_arguments,
    run=_run,
)
