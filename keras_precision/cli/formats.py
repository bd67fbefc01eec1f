"""``keras-precision formats``."""

import argparse
from dataclasses import asdict

from keras_precision.cli.command import Command, CommandOutput

__all__ = ["COMMAND"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    """Add no arguments."""


def _run(options: argparse.Namespace) -> CommandOutput:
    from keras_precision.core.formats.fit import FORMATS
    from keras_precision.report.tables.formats import cheat_sheet

    return CommandOutput(cheat_sheet(), [asdict(number_format) for number_format in FORMATS.values()])


COMMAND = Command(
    name="formats",
    help="range and precision of number formats, and the hardware that supports them",
    description="Prints the limits of all number formats, and the hardware that multiplies in them.",
    examples=("formats", "formats --json"),
    arguments=_arguments,
    run=_run,
)
