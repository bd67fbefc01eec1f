"""Optional packages, imported when a function that needs them is called."""

import importlib
import importlib.util
import sys
from types import ModuleType

from keras_precision.core.errors import MissingExtraError

__all__ = ["available", "require"]


def available(module: str) -> bool:
    """Return whether ``module`` is installed, without importing it.

    Example:
        >>> available("json")
        True
    """
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package of a dotted name is missing
        return False


def require(module: str, *, extra: str) -> ModuleType:
    """Import ``module``, or raise ``MissingExtraError`` with the extra of this package that installs it.

    A module that is installed but broken raises its own error, so that the cause is seen.

    Example:
        >>> require("json", extra="tensorflow").dumps([1])
        '[1]'
    """
    if not available(module):
        message = (
            f"Expected the package '{module.partition('.')[0]}', which is not installed. "
            f'Install it with: pip install "keras-precision[{extra}]"'
        )
        raise MissingExtraError(message, name=module)
    return importlib.import_module(module)
