"""``keras-precision compare``."""

import argparse
import json
from typing import Any

from keras_precision.cli.command import Command, CommandOutput
from keras_precision.cli.module_function import IMPORT_LOCATION, DataPart, add_model, modules_importable

__all__ = ["COMMAND"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "training data")
    parser.add_argument(
        "--validation",
        metavar="NAME",
        help=f"module:function that returns validation data, {IMPORT_LOCATION} (a fifth of the arrays)",
    )
    parser.add_argument(
        "--precisions", nargs="+", default=["float32", "mixed_bfloat16", "mixed_float16"], metavar="NAME",
        help="the first is the baseline (float32 mixed_bfloat16 mixed_float16)",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="one training per seed (0 1 2)"
    )
    parser.add_argument("--epochs", type=int, default=1, metavar="N", help="epochs per training (%(default)s)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps per training, instead of epochs")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="samples per batch (%(default)s)")
    parser.add_argument("--metric", metavar="NAME", help="the compiled metric to compare (the first)")
    parser.add_argument(
        "--processes", type=int, default=8, metavar="N", help="interleaved timing processes per run (%(default)s)"
    )
    parser.add_argument(
        "--timing-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="maximum time of interleaved timing (%(default)g)",
    )
    parser.add_argument("--time-limit", type=float, metavar="S", help="maximum time in total (no limit)")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the file for the comparison, saved again after every seed"
    )


def _run(options: argparse.Namespace) -> CommandOutput:
    import keras_precision as kp

    data: tuple[Any, Any] = options.data, options.validation
    if options.validation is None:
        data = DataPart(options.data, validation=False), DataPart(options.data, validation=True)
    with modules_importable(options.model, options.data, options.validation):
        comparison = kp.compare_training(
            options.model,
            *data,
            precisions=options.precisions,
            seeds=options.seeds,
            epochs=options.epochs,
            steps=options.steps,
            batch_size=options.batch_size,
            metric=options.metric,
            processes=options.processes,
            timing_seconds=options.timing_seconds,
            time_limit=options.time_limit,
            path=options.output,
        )
    return CommandOutput(kp.render(comparison), json.loads(comparison.to_bytes()))


COMMAND = Command(
    name="compare",
    help="train in several precisions, and compare them statistically",
    description="Trains one model in several precisions, otherwise identically, every run in its own process, and "
    "reports which is better in time, memory and metric, or that the data are inconclusive. "
    "KERAS_BACKEND selects the backend.",
    examples=(
        "compare --model mine:build --data mine:train --validation mine:test --epochs 3 -o comparison.json",
        "compare --model model.keras --data mine:train --precisions float32 mixed_bfloat16 --steps 200 --json",
    ),
    arguments=_arguments,
    run=_run,
)
