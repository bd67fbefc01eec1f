"""Every exception that the package raises on purpose.

::

    PrecisionError
    ├── InputError (ValueError)            what was passed in cannot be used
    │   ├── PlanError                      a plan that is wrong in itself
    │   │   ├── UnknownPrecisionError      a precision that nobody, or another verb, knows
    │   │   ├── UnknownLayerError          a layer path that the model does not have
    │   │   └── PlanKindError              a training plan where a deployment plan is due, or the reverse
    │   ├── ModelError                     a model that this verb cannot take: unbuilt, subclassed, not a model
    │   ├── DataError                      samples or labels that do not fit the model
    │   └── DestinationError               a path that cannot be written
    ├── FileFormatError (ValueError)       a file that is damaged, foreign, or of a newer format
    ├── NotMeasuredError (LookupError)     a result asked for before there is one
    ├── NotComparableError (ValueError)    figures that were not got alike
    ├── WorkerError (RuntimeError)         a run in a process of its own that failed
    ├── LossScaleCollapse (RuntimeError)   a training that no loss scale can save
    ├── MissingExtraError (ImportError)    an optional package that is not installed
    ├── SearchError (RuntimeError)         a search whose trials fail, or that found nothing within its budget
    └── ExportError (RuntimeError)         a conversion that failed
        └── PlanNotHonouredError           a file, or a model, that does not do what its plan says

``PrecisionWarning`` is the one warning category.

A message says three things: what was expected, what was received, and what to do about it.
"""

import difflib
from collections.abc import Iterable

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
    """What was passed in cannot be used."""


class PlanError(InputError):
    """A precision plan that is wrong in itself."""


class UnknownPrecisionError(PlanError):
    """A precision that nobody knows, or that another verb takes."""


class UnknownLayerError(PlanError):
    """A layer path that the model does not have."""


class PlanKindError(PlanError):
    """A plan of one kind (training, deployment) given to a verb of the other."""


class ModelError(InputError):
    """A model that this verb cannot take."""


class DataError(InputError):
    """Samples or labels that do not fit the model."""


class DestinationError(InputError):
    """A path that cannot be written."""


class FileFormatError(PrecisionError, ValueError):
    """A file that is damaged, foreign, or of a newer format."""


class NotMeasuredError(PrecisionError, LookupError):
    """A result or a metric asked for before it was measured."""


class NotComparableError(PrecisionError, ValueError):
    """Figures that were not got alike: on another machine, from another source, from other data."""


class WorkerError(PrecisionError, RuntimeError):
    """A run in a process of its own that failed, ended, or took too long."""


class LossScaleCollapse(PrecisionError, RuntimeError):  # noqa: N818 - it names what happened to the run
    """Step after step overflows at the smallest loss scale: no scale can save the training."""


class MissingExtraError(PrecisionError, ImportError):
    """An optional package that is not installed."""


class SearchError(PrecisionError, RuntimeError):
    """A search whose trials fail, or that found nothing within its budget."""


class ExportError(PrecisionError, RuntimeError):
    """A conversion that failed."""


class PlanNotHonouredError(ExportError):
    """A written file, or a model, does not do what its plan says."""


class PrecisionWarning(UserWarning):
    """Something that the package could not do, and went on without."""


def nearest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return a sentence that offers the names closest to ``name``.

    Args:
        name: What was asked for.
        known: What there is.
        limit: The most names to offer.

    Returns:
        ``"Did you mean 'stem'?"``, or an empty string where nothing is close.

    Example:
        >>> nearest("stam", ["stem", "head"])
        "Did you mean 'stem'?"
    """
    folded = {each.lower(): each for each in known}
    close = [folded[each] for each in difflib.get_close_matches(name.lower(), folded, n=limit, cutoff=0.5)]
    return f"Did you mean {' or '.join(map(repr, close))}?" if close else ""
