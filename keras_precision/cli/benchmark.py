"""``keras-precision benchmark``."""

import argparse

from keras_precision.cli.command import Command, CommandOutput
from keras_precision.cli.data import add_data, read_data

__all__ = ["COMMAND"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="FILE", help="a .keras, .h5, .hdf5 or .tflite file")
    add_data(parser, "--data", labels=False, required=False, help="the samples to run one after the other (zeros)")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="samples per call of a Keras model (1)")
    parser.add_argument("--warmup", type=int, default=10, metavar="N", help="calls before timing starts (10)")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="minimum seconds of timing (1)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of a .tflite file (1)")
    parser.add_argument("--per-operator", action="store_true", help="also time the operators of a .tflite file")
    parser.add_argument("--unsafe", action="store_true", help="run Python code in the model file (Lambda)")


def _run(options: argparse.Namespace) -> CommandOutput:
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
    return CommandOutput.of(result, draw(figures_table(result)))


COMMAND = Command(
    name="benchmark",
    help="time the predictions of a model file",
    description="Times the predictions of a model file: median and 95th percentile of single calls, without warm-up.",
    examples=(
        "benchmark model.tflite --threads 2 --per-operator",
        "benchmark model.keras --data test.npz --batch-size 32",
    ),
    arguments=_arguments,
    run=_run,
)
