"""``keras-precision max-batch``."""

import argparse

from keras_precision.cli.command import Command, CommandOutput
from keras_precision.cli.module_function import add_model, modules_importable

__all__ = ["COMMAND"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "(x, y) with a requested number of samples")
    parser.add_argument(
        "--precisions", nargs="+", default=["float32", "mixed_bfloat16", "mixed_float16"], metavar="NAME",
        help="precisions to search (float32 mixed_bfloat16 mixed_float16)",
    )  # fmt: skip
    parser.add_argument(
        "--memory-limit", type=float, metavar="MB", help="memory limit of the process (80 %% of the free memory)"
    )
    parser.add_argument(
        "--margin", type=float, default=0.05, metavar="SHARE", help="share of the limit that stays free (%(default)g)"
    )
    parser.add_argument(
        "--max-batch", type=int, default=65536, metavar="N", help="upper end of the search (%(default)s)"
    )


def _run(options: argparse.Namespace) -> CommandOutput:
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
    return CommandOutput.of(result, kp.render(result))


COMMAND = Command(
    name="max-batch",
    help="find the largest batch size that fits into memory",
    description="Finds the largest batch size with which a model can be trained within a memory limit, per precision: "
    "predicted from small batches, and verified in separate processes.",
    examples=(
        "max-batch --model mine:build --data mine:batch --memory-limit 4000",
        "max-batch --model model.keras --data mine:batch --precisions float32 --json",
    ),
    arguments=_arguments,
    run=_run,
)
