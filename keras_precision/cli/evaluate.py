"""``keras-precision evaluate``."""

import argparse

from keras_precision.cli.command import Command, CommandOutput
from keras_precision.cli.data import add_data, read_data

__all__ = ["COMMAND"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="FILE", help="a .keras, .h5, .hdf5 or .tflite file")
    add_data(parser, "--data", labels=True, required=True, help="the samples and labels for evaluation")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="Keras metrics (accuracy)")
    parser.add_argument("--reference", metavar="FILE", help="the original model: adds how often both predict the same")
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="samples per call of a Keras model (32)"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="parallel interpreters of a .tflite file (one per core)"
    )
    parser.add_argument("--unsafe", action="store_true", help="run Python code in the model file (Lambda)")


def _run(options: argparse.Namespace) -> CommandOutput:
    import keras_precision as kp
    from keras_precision.findings.quantization_rules import quantization_findings
    from keras_precision.report.tables.channels import channel_tables
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
    shown = "\n\n".join(map(draw, [figures_table(result), *channel_tables([result])]))
    return CommandOutput.of(result, shown, quantization_findings(result))


COMMAND = Command(
    name="evaluate",
    help="evaluate a model file on labelled samples",
    description="Evaluates a model file on labelled samples; with --reference, reports how often both models predict the same.",
    examples=(
        "evaluate model.tflite --data test.npz --reference model.keras",
        "evaluate model.keras --data housing.npz --metrics mae mse --y price",
    ),
    arguments=_arguments,
    run=_run,
)
