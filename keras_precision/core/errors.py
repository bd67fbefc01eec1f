"""Every exception that the package raises on purpose.

::

    PrecisionError
    ├── InputError (ValueError)            an argument that cannot be used
    │   ├── PlanError                      a plan that is invalid in itself
    │   │   ├── UnknownPrecisionError      a precision that is unknown, or belongs to another function
    │   │   ├── UnknownLayerError          a layer path that the model does not have
    │   │   └── PlanKindError              a training plan where a deployment plan is required, or the reverse
    │   ├── ModelError                     a model that this function does not support: unbuilt, subclassed, not a model
    │   ├── DataError                      samples or labels that do not fit the model
    │   └── DestinationError               a path that cannot be written
    ├── FileFormatError (ValueError)       a file that is damaged, foreign, or of a newer format
    ├── NotMeasuredError (LookupError)     a result or metric that has not been measured
    ├── NotComparableError (ValueError)    figures measured under different conditions
    ├── WorkerError (RuntimeError)         a run in a process of its own that failed
    ├── LossScaleCollapse (RuntimeError)   a training run that no loss scale can save
    ├── MissingExtraError (ImportError)    an optional package that is not installed
    ├── SearchError (RuntimeError)         a search whose trials fail, or in which no plan is within the budget
    └── ExportError (RuntimeError)         a conversion that failed
        └── PlanNotHonouredError           a file, or a model, that does not do what its plan says

``PrecisionWarning`` is the one warning category.

A message has three parts: what was expected, what was received, and how to fix it.
"""

import difflib
from collections.abc import Iterable

from keras_precision.core.printable import one_line

__all__ = [
    "DataError",
    "DestinationError",
    "ExportError",
    "FileFormatError",
    "InputError",
    "LossScaleCollapse",
    "MissingExtraError",
    "ModelError",
    "NotComparableError",
    "NotMeasuredError",
    "PlanError",
    "PlanKindError",
    "PlanNotHonouredError",
    "PrecisionError",
    "PrecisionWarning",
    "SearchError",
    "UnknownLayerError",
    "UnknownPrecisionError",
    "WorkerError",
]


class PrecisionError(Exception):
    """Base of every exception of this package."""


class InputError(PrecisionError, ValueError):
    """An argument cannot be used."""


class PlanError(InputError):
    """A precision plan that is invalid in itself."""


class UnknownPrecisionError(PlanError):
    """A precision that is unknown, or that belongs to another function."""


class UnknownLayerError(PlanError):
    """A layer path that the model does not have."""


class PlanKindError(PlanError):
    """A plan of one kind (training, deployment) passed to a function that takes the other."""


class ModelError(InputError):
    """A model that this function does not support."""


class DataError(InputError):
    """Samples or labels that do not fit the model."""


class DestinationError(InputError):
    """A path that cannot be written."""


class FileFormatError(PrecisionError, ValueError):
    """A file that is damaged, foreign, or of a newer format."""


class NotMeasuredError(PrecisionError, LookupError):
    """A result or metric that has not been measured."""


class NotComparableError(PrecisionError, ValueError):
    """Figures measured under different conditions: on another machine, from another source, on other data."""


class WorkerError(PrecisionError, RuntimeError):
    """A run in a process of its own that failed, ended, or took too long."""


class LossScaleCollapse(PrecisionError, RuntimeError):  # noqa: N818 - it names what happened to the run
    """Step after step overflows at the smallest loss scale: no loss scale can save the run."""


class MissingExtraError(PrecisionError, ImportError):
    """An optional package that is not installed."""


class SearchError(PrecisionError, RuntimeError):
    """A search whose trials fail, or in which no plan is within the budget."""


class ExportError(PrecisionError, RuntimeError):
    """A conversion that failed."""


class PlanNotHonouredError(ExportError):
    """A written file, or a model, does not do what its plan says."""


class PrecisionWarning(UserWarning):
    """Something that the package could not do, and continued without, or that its user should know of a result, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def nearest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return a sentence that suggests the names closest to ``name``, or an empty string if none is close.

    Example:
        >>> nearest("stam", ["stem", "head"])
        "Did you mean 'stem'?"
    """
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), by_lower_case, n=limit, cutoff=0.5)
    close = [by_lower_case[match] for match in matches]
    return f"Did you mean {' or '.join(map(repr, close))}?" if close else ""
