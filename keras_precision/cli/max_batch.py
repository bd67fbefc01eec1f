"""``keras-precision max-batch``."""

import argparse

from keras_precision.cli.named import add_model, modules_importable
from keras_precision.cli.verb import Answer, Verb

__all__ = ["VERB"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "(x, y) of as many samples as it is asked for")
    parser.add_argument(
        "--precisions", nargs="+", default=["float32", "mixed_bfloat16", "mixed_float16"], metavar="NAME",
        help="precisions to search in (float32 mixed_bfloat16 mixed_float16)",
    )  # fmt: skip
    parser.add_argument(
        "--memory-limit", type=float, metavar="MB", help="megabytes that the process may hold (80 %% of what is free)"
    )
    parser.add_argument(
        "--margin", type=float, default=0.05, metavar="SHARE", help="of it that stays free (%(default)g)"
    )
    parser.add_argument("--max-batch", type=int, default=65536, metavar="N", help="where the search ends (%(default)s)")


def _run(options: argparse.Namespace) -> Answer:
    import keras_precision as kp

    with modules_importable(options.model, options.data):
        result = kp.find_max_batch_size(
            options.model,
            options.data,
            options.precisions,
            memory_limit=None if options.memory_limit is None else int(options.memory_limit * 1e6),
            margin=options.margin,
            max_batch=options.max_batch,
        )
    return Answer.of(result, kp.render(result))


VERB = Verb(
    name="max-batch",
    help="the largest batch that a training step fits with",
    description="Finds the largest batch that a model can be trained with in a limit of memory, in each precision: "
    "predicted from small ones, and verified in processes of their own.",
    examples=(
        "max-batch --model mine:build --data mine:batch --memory-limit 4000",
        "max-batch --model model.keras --data mine:batch --precisions float32 --json",
    ),
    arguments=_arguments,
    run=_run,
)
