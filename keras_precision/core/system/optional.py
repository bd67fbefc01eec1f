"""Packages that only some verbs need, imported when such a verb is called."""

import importlib
import importlib.util
import sys
from types import ModuleType

from keras_precision.core.errors import MissingExtraError

__all__ = ["available", "require"]


def available(module: str) -> bool:
    """Tell whether ``module`` could be imported, without importing it.

    Args:
        module: A top-level or dotted module name.

    Returns:
        True if it is loaded or can be found.

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
    """Import ``module``, or say which extra of this package brings it.

    Args:
        module: The module to import, such as ``"tensorflow"``.
        extra: The extra of this package that installs it.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: ``module`` is not installed. A module that is installed but broken
            raises its own error, so that the true cause is seen.

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
