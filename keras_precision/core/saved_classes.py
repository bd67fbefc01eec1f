"""Which modules register the classes that saved models of this package name: its face says it, so that no lower room has to."""

import importlib

__all__ = ["add_modules", "import_modules"]

_MODULES: dict[str, tuple[str, ...]] = {}


def add_modules(keras: str, *modules: str) -> None:
    """Say which modules register classes with a Keras, once they are imported.

    Args:
        keras: ``"keras"`` or ``"tf_keras"``.
        *modules: Their full names.
    """
    _MODULES[keras] = (*_MODULES.get(keras, ()), *modules)


def import_modules(keras: str) -> None:
    """Import the modules, so that a saved model which names their classes can be loaded.

    Args:
        keras: As for ``add_modules``.
    """
    for module in _MODULES.get(keras, ()):
        importlib.import_module(module)
