"""The modules that register the classes named in saved models: the package's ``__init__`` lists them, so that loading imports nothing from above."""

import importlib

__all__ = ["add_modules", "import_modules"]

_MODULES: dict[str, tuple[str, ...]] = {}


def add_modules(keras: str, *modules: str) -> None:
    """Add full names of modules that register classes with ``"keras"`` or ``"tf_keras"`` when they are imported."""
    _MODULES[keras] = (*_MODULES.get(keras, ()), *modules)


def import_modules(keras: str) -> None:
    """Import the modules, so that a saved model that names their classes can be loaded."""
    for module in _MODULES.get(keras, ()):
        importlib.import_module(module)
