"""The command line: ``keras-precision VERB``, one short file a verb."""

from keras_precision.cli.main import main

__all__ = ["main"]
