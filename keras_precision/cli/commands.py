"""All commands, in the order of the workflow. A new one is a file in this folder, and a line in both lists below."""

from keras_precision.cli.benchmark import COMMAND as BENCHMARK
from keras_precision.cli.check import COMMAND as CHECK
from keras_precision.cli.compare import COMMAND as COMPARE
from keras_precision.cli.completion import COMMAND as COMPLETION
from keras_precision.cli.demo import COMMAND as DEMO
from keras_precision.cli.diagnose import COMMAND as DIAGNOSE
from keras_precision.cli.evaluate import COMMAND as EVALUATE
from keras_precision.cli.explain import COMMAND as EXPLAIN
from keras_precision.cli.export import COMMAND as EXPORT
from keras_precision.cli.formats import COMMAND as FORMATS
from keras_precision.cli.hardware import COMMAND as HARDWARE
from keras_precision.cli.lint import COMMAND as LINT
from keras_precision.cli.max_batch import COMMAND as MAX_BATCH
from keras_precision.cli.report import COMMAND as REPORT
from keras_precision.cli.search import COMMAND as SEARCH

__all__ = ["COMMANDS"]

COMMANDS = (
    DEMO,
    FORMATS,
    HARDWARE,
    COMPARE,
    MAX_BATCH,
    DIAGNOSE,
    LINT,
    EXPORT,
    EVALUATE,
    BENCHMARK,
    EXPLAIN,
    SEARCH,
    REPORT,
    CHECK,
    COMPLETION,
)
