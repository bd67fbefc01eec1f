"""``keras-precision compare``."""

import argparse
import json
from typing import Any

from keras_precision.cli.named import WHERE, Part, add_model, modules_importable
from keras_precision.cli.verb import Answer, Verb

__all__ = ["VERB"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "training data")
    parser.add_argument(
        "--validation",
        metavar="NAME",
        help=f"module:function that returns validation data, {WHERE} (a fifth of the arrays)",
    )
    parser.add_argument(
        "--precisions", nargs="+", default=["float32", "mixed_bfloat16", "mixed_float16"], metavar="NAME",
        help="the first is the baseline (float32 mixed_bfloat16 mixed_float16)",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="one training each (0 1 2)"
    )
    parser.add_argument("--epochs", type=int, default=1, metavar="N", help="epochs of each training (%(default)s)")
    parser.add_argument("--steps", type=int, metavar="N", help="training steps of each, in place of epochs")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="samples a batch (%(default)s)")
    parser.add_argument("--metric", metavar="NAME", help="the compiled metric to compare (the first)")
    parser.add_argument(
        "--processes", type=int, default=8, metavar="N", help="of each run, that take turns (%(default)s)"
    )
    parser.add_argument(
        "--timing-seconds", type=float, default=60.0, metavar="S", help="turns at the most, in all (%(default)g)"
    )
    parser.add_argument("--time-limit", type=float, metavar="S", help="for everything (no limit)")
    parser.add_argument("-o", "--output", metavar="FILE", help="where the comparison is saved, again after each seed")


def _run(options: argparse.Namespace) -> Answer:
    import keras_precision as kp

    data: tuple[Any, Any] = options.data, options.validation
    if options.validation is None:
        data = Part(options.data, rest=False), Part(options.data, rest=True)
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
    return Answer(kp.render(comparison), json.loads(comparison.to_bytes()))


VERB = Verb(
    name="compare",
    help="train in several precisions, and say what the figures can show",
    description="Trains one model in several precisions, otherwise identically, each run in a process of its own, and "
    "says which is better in time, memory and metric, or that these data cannot tell. "
    "KERAS_BACKEND chooses the backend.",
    examples=(
        "compare --model mine:build --data mine:train --validation mine:test --epochs 3 -o comparison.json",
        "compare --model model.keras --data mine:train --precisions float32 mixed_bfloat16 --steps 200 --json",
    ),
    arguments=_arguments,
    run=_run,
)
