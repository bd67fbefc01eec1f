"""KerasObjects: what the names in a model file stand for in one Keras, looked up without importing anything."""

import functools
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Literal

from keras_precision._adapters.model_file.tensor_functions import is_tensor_function
from keras_precision.core.saved_classes import import_modules

__all__ = ["KerasObjects", "Verdict", "is_model_function"]

Verdict = Literal["registered", "of Keras", "lambda", "refused", "unknown"]

# To be of Keras is not enough: keras.utils.get_file downloads (CVE-2025-8747), keras.config switches the safe mode off
# (CVE-2025-9906), layers of keras.src.export, keras.src.utils and tf_keras.src.export load a SavedModel, a pickle or
# serialized code (CVE-2025-49655, CVE-2026-1669).
_PACKAGES = """
activations applications backend.jax.optimizers backend.tensorflow.optimizers backend.torch.optimizers
constraints distillation dtype_policies engine initializers layers legacy.layers
legacy.losses losses metrics mixed_precision models ops optimizers premade_models quantizers random regularizers
trainers
"""
_FUNCTION_PACKAGES = "activations constraints initializers losses metrics ops regularizers"


def _within(packages: str) -> re.Pattern[str]:
    names = "|".join(re.escape(name) for name in packages.split())
    return re.compile(rf"(tf_)?keras(\.src)?\.({names})(\..*)?")


_CLASSES_FROM, _FUNCTIONS_FROM = _within(_PACKAGES), _within(_FUNCTION_PACKAGES)
# Initializers of TensorFlow, which tf_keras has as its own: EfficientNetV2 of tf_keras has one.
_INITIALIZERS_FROM = ("tensorflow.python.ops.init_ops", "tensorflow.python.ops.init_ops_v2")

# A class must descend from one of these, of whichever package.
_KINDS = frozenset(
    {
        "BaseOptimizer",
        "Constraint",
        "Container",
        "DTypePolicy",
        "DTypePolicyMap",
        "Initializer",
        "InputSpec",
        "Layer",
        "LearningRateSchedule",
        "Loss",
        "Metric",
        "Operation",
        "Optimizer",
        "OptimizerV2",
        "Policy",
        "QuantizationConfig",
        "Quantizer",
        "Regularizer",
        "SeedGenerator",
    }
)

# Where Keras looks up a name that comes without a module, as all names do in .h5 files.
_NAMED_BY_KERAS_3 = """
layers models initializers regularizers constraints losses metrics optimizers activations dtype_policies quantizers
"""
_NAMED_BY_TF_KERAS = """
activations initializers regularizers constraints losses metrics optimizers mixed_precision.policy engine.compile_utils
"""
# BUILTIN_MODULES of serialization_lib.py in both packages.
_BUILTIN = ("activations", "constraints", "initializers", "losses", "metrics", "optimizers", "regularizers")


def _is_modeling_module(module: str) -> bool:
    """Tell whether Keras may import a module that a file names."""
    return module in ("keras", "tf_keras", *_INITIALIZERS_FROM) or _CLASSES_FROM.fullmatch(module) is not None


def _is_model_class(candidate: Any) -> bool:
    """Tell whether an object is a class of Keras that models consist of."""
    if not isinstance(candidate, type) or not _is_modeling_module(candidate.__module__):
        return False
    return not _KINDS.isdisjoint(base.__name__ for base in candidate.__mro__)


def _is_lambda(candidate: Any) -> bool:
    return isinstance(candidate, type) and any(base.__name__ == "Lambda" for base in candidate.__mro__)


def is_model_function(candidate: Any) -> bool:
    """Tell whether an object is a function of Keras, or of TensorFlow, that computes tensors."""
    if isinstance(candidate, type) or not callable(candidate):
        return False
    module, name = str(getattr(candidate, "__module__", "")), str(getattr(candidate, "__name__", ""))
    if _FUNCTIONS_FROM.fullmatch(module):
        return name not in ("get", "serialize", "deserialize")
    return module.startswith("tensorflow.") and is_tensor_function(_tensorflow_name(candidate))


class KerasObjects:
    """What names in files stand for in one Keras.

    Args:
        keras: The module: ``keras`` or ``tf_keras``.
        custom_objects: What the caller adds by name.
    """

    def __init__(self, keras: ModuleType, custom_objects: Mapping[str, Any]) -> None:
        self.package = keras.__name__
        self.custom_objects = custom_objects
        self._keras: Any = keras
        self._verdicts: dict[tuple[str, str | None, str | None], Verdict] = {}

    def is_registered(self, name: object) -> bool:
        """Tell whether the caller registered something by a name, or passed it."""
        if not isinstance(name, str):
            return False
        if name.startswith("keras_precision>"):
            import_modules(self.package)
        return self._keras.saving.get_registered_object(name, custom_objects=self.custom_objects) is not None

    def is_registered_function(self, name: str) -> bool:
        """Tell whether the caller registered a function by a name, with or without a package before it."""
        if self.is_registered(name):
            return True
        registered = {*self._keras.saving.get_custom_objects(), *self.custom_objects}
        # Keras 3 looks them up by the end of the name, too: _retrieve_class_or_fn in serialization_lib.py.
        return self.package == "keras" and any(key.endswith(f">{name}") for key in registered)

    def verdict(self, name: str, module: str | None, registered: str | None) -> Verdict:
        """Return what there is to say about a class.

        Args:
            name: Of the class.
            module: Where the file says that it is; None where it does not say.
            registered: The name that it was registered by.
        """
        key = (name, module, registered)
        if key not in self._verdicts:
            self._verdicts[key] = self._judged(*key)
        return self._verdicts[key]

    def _judged(self, name: str, module: str | None, registered: str | None) -> Verdict:
        if self.is_registered(registered) or (module is None and self.is_registered(name)):
            return "registered"
        candidates = self.candidates(name, module)
        if any(map(_is_lambda, candidates)):
            return "lambda"
        if not all(map(_is_model_class, candidates)):
            return "refused"
        if not candidates or registered not in (None, name):
            return "unknown"
        if module is None or _exported(self.package, f"{module}.{name}") is not None or _is_modeling_module(module):
            return "of Keras"
        return "unknown"  # tf_keras would import the module

    def candidates(self, name: str, module: str | None) -> tuple[Any, ...]:
        """Return everything that Keras may take a name for; it looks at the module in some places, and not in others.

        Args:
            name: Of a class or a function.
            module: Where the file says that it is; None where it does not say.
        """
        return _candidates(self.package, name, module)


@functools.lru_cache(maxsize=4096)
def _candidates(package: str, name: str, module: str | None) -> tuple[Any, ...]:
    results = list(_names(package).get(name, ()))
    if module == "builtins":
        results += [_exported(package, f"keras.{part}.{name}") for part in _BUILTIN]
    elif module:
        results.append(_exported(package, f"{module}.{name}"))
        results.append(vars(sys.modules.get(_imported_as(package, module), object)).get(name))
    return tuple(candidate for candidate in results if candidate is not None)


def _imported_as(package: str, module: str) -> str:
    """The module that a Keras imports for the name of one; tf_keras reads ``keras.`` as ``tf_keras.``."""
    return f"tf_{module}" if package == "tf_keras" and module.startswith("keras") else module


def _exported(package: str, name: str) -> Any:
    if package == "keras":
        from keras.src.api_export import get_symbol_from_name
    else:
        from tensorflow.python.util.tf_export import get_symbol_from_name
    found = get_symbol_from_name(name)
    return get_symbol_from_name(f"compat.v1.{name}") if found is None and "__internal__.legacy" in name else found


def _tensorflow_name(function: Any) -> str | None:
    """The name of a function in TensorFlow's interface; None where it has none."""
    from tensorflow.python.util.tf_export import get_canonical_name_for_symbol

    name = get_canonical_name_for_symbol(function)
    return None if name is None else str(name)


@functools.cache
def _names(package: str) -> dict[str, list[Any]]:
    """Name to everything that a Keras calls so."""
    names: dict[str, list[Any]] = {}
    for table in _tables(package):
        for name, value in table.items():
            if not inspect.ismodule(value) and value not in names.setdefault(name, []):
                names[name].append(value)
    return names


def _tables(package: str) -> Iterator[Mapping[str, Any]]:
    modules = _NAMED_BY_KERAS_3 if package == "keras" else _NAMED_BY_TF_KERAS
    for part in modules.split():
        module = sys.modules.get(f"{package}.src.{part}")
        if module is not None:
            yield {name: value for name, value in vars(module).items() if callable(value)}
            yield getattr(module, "ALL_OBJECTS_DICT", {})
    if package == "tf_keras":
        from tf_keras.src import initializers
        from tf_keras.src.layers import serialization

        for tables in (initializers, serialization):
            tables.populate_deserializable_objects()
            yield dict(tables.LOCAL.ALL_OBJECTS)
