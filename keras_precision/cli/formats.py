"""``keras-precision formats``."""

import argparse
from dataclasses import asdict

from keras_precision.cli.verb import Answer, Verb

__all__ = ["VERB"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def _run(options: argparse.Namespace) -> Answer:
    from keras_precision.core.formats.fit import FORMATS
    from keras_precision.report.tables.formats import cheat_sheet

    return Answer(cheat_sheet(), [asdict(each) for each in FORMATS.values()])


VERB = Verb(
    name="formats",
    help="what each number format can hold, and what computes in it",
    description="Prints the limits of each number format, and the hardware that multiplies in it.",
    examples=("formats", "formats --json"),
    arguments=_arguments,
    run=_run,
)
