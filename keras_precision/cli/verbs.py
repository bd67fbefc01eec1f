"""The verbs, in the order of the workflow. A new one is a file beside this one, and a line in each half below."""

from keras_precision.cli.benchmark import VERB as BENCHMARK
from keras_precision.cli.check import VERB as CHECK
from keras_precision.cli.compare import VERB as COMPARE
from keras_precision.cli.completion import VERB as COMPLETION
from keras_precision.cli.demo import VERB as DEMO
from keras_precision.cli.diagnose import VERB as DIAGNOSE
from keras_precision.cli.evaluate import VERB as EVALUATE
from keras_precision.cli.explain import VERB as EXPLAIN
from keras_precision.cli.export import VERB as EXPORT
from keras_precision.cli.formats import VERB as FORMATS
from keras_precision.cli.hardware import VERB as HARDWARE
from keras_precision.cli.lint import VERB as LINT
from keras_precision.cli.max_batch import VERB as MAX_BATCH
from keras_precision.cli.report import VERB as REPORT
from keras_precision.cli.search import VERB as SEARCH

__all__ = ["VERBS"]

VERBS = (
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
