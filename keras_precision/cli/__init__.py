"""The command line: ``keras-precision COMMAND``, one short file per command."""

from keras_precision.cli.main import main

__all__ = ["main"]
