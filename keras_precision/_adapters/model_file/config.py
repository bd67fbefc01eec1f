"""ModelConfig: what Keras would call, import or read for the configuration in a model file."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from keras_precision._adapters.model_file.keras_objects import KerasObjects, is_model_function
from keras_precision._adapters.model_file.tensor_functions import (
    INSTANCE_METHODS,
    INSTANCE_PROPERTIES,
    OPERATIONS,
    RAGGED_CONSTRUCTORS,
    is_tensor_function,
)

__all__ = ["ConfigIssue", "ModelConfig"]

# Class names of plain values, where no module is named.
_VALUES = frozenset({"__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"})
_TYPE_SPECS = frozenset({"TensorSpec", "RaggedTensorSpec", "SparseTensorSpec", "IndexedSlicesSpec"})
_NESTED = (list, dict)
_EINSUM = ("einsum", "linalg.einsum")  # their first argument is an equation


@dataclass(frozen=True)
class ConfigIssue:
    """A reference in a file to something that is not part of Keras models.

    Attributes:
        what: What it is, and in which layer.
        kind: ``"code"`` is marshalled, ``"call"`` would be run, imported or read by loading, ``"unknown"`` is a name
            that this Keras version does not have.
    """

    what: str
    kind: Literal["code", "call", "unknown"] = "call"


@dataclass(frozen=True)
class ModelConfig:
    """The configuration of a model, as parsed from JSON.

    Attributes:
        model: The configuration without the arguments of ``compile``; None where the file has none.
        training: The arguments of ``compile``; None where it was not compiled.
    """

    model: Any
    training: Any = None

    def findings(self, objects: KerasObjects, *, compiled: bool) -> list[ConfigIssue]:
        """Return what Keras must not load, in the order of the layers.

        Without ``compiled``, Keras ignores the arguments of ``compile``, which may name a loss of the caller's own; only
        marshalled code counts there.
        """
        results = list(_scan(self.model, objects))
        results += [issue for issue in _scan(self.training, objects) if compiled or issue.kind == "code"]
        return list(dict.fromkeys(results))


def _scan(config: Any, objects: KerasObjects) -> Iterator[ConfigIssue]:
    """Yield the issues of a configuration, without recursion, which a file could exhaust."""
    pending: list[tuple[Any, str]] = [(config, "?")]
    while pending:
        value, layer = pending.pop()
        if isinstance(value, list):
            pending += [(item, layer) for item in reversed(value) if isinstance(item, _NESTED)]
        elif isinstance(value, dict):
            layer = _layer_name(value, layer)
            code = _has_code(value)
            if code:
                yield ConfigIssue(f"code of '{layer}'", kind="code")
            elif "class_name" in value:
                yield from _reference(value, layer, objects)
            if not code:
                pending += [(item, layer) for item in reversed(value.values()) if isinstance(item, _NESTED)]


def _layer_name(value: Mapping[str, Any], outer: str) -> str:
    inner = value.get("config")
    name = inner.get("name") if isinstance(inner, dict) else None
    if not isinstance(name, str):
        name = value.get("name", outer)
    return name if isinstance(name, str) else outer


def _has_code(value: Mapping[str, Any]) -> bool:
    """Tell whether a dictionary or its configuration has marshalled code (CVE-2024-3660, CVE-2025-9905)."""
    inner = value.get("config")
    if value.get("class_name") == "__lambda__" or _is_marked(value) or (isinstance(inner, dict) and _is_marked(inner)):
        return True
    if value.get("class_name") != "Lambda" or not isinstance(inner, dict):
        return False
    functions = [inner.get(key) for key in ("function", "output_shape", "mask")]
    dumped = [item.get("class_name") == "__lambda__" for item in functions if isinstance(item, dict)]
    return any(dumped) or isinstance(functions[0], list)


def _is_marked(value: Mapping[str, Any]) -> bool:
    """Tell whether a function is marked as marshalled, as in Lambda and the wrappers of RNN cells of tf_keras."""
    # function_type, output_shape_type, mask_type, residual_fn_type, dropout_fn_type
    return "lambda" in value.values() and any(kind == "lambda" and key.endswith("_type") for key, kind in value.items())


def _reference(value: dict[str, Any], layer: str, objects: KerasObjects) -> Iterator[ConfigIssue]:
    """Yield the issues of a dictionary with a ``class_name``."""
    name = value["class_name"]
    if name == "TypeSpec" and "config" not in value:
        if str(value.get("type_spec")).removeprefix("tf.") not in _TYPE_SPECS:
            yield ConfigIssue(f"the type '{value.get('type_spec')}' in layer '{layer}'")
    elif name == "__typespec__":
        if not _is_type_spec(value):
            yield ConfigIssue(f"the type '{value.get('module')}.{value.get('spec_name')}' in layer '{layer}'")
    elif "config" not in value:
        return  # both packages treat it as a plain dictionary
    elif not isinstance(name, str) or not all(
        value.get(key) is None or isinstance(value[key], str) for key in ("module", "registered_name")
    ):
        yield ConfigIssue(f"a class whose name is no text in layer '{layer}'")
    elif name in _VALUES and value.get("module") is None:
        return
    elif name == "function":
        yield from _function(value, layer, objects)
    else:
        yield from _class(value, layer, objects)


def _is_type_spec(value: Mapping[str, Any]) -> bool:
    module, name = value.get("module"), value.get("spec_name")
    return (
        str(name) in _TYPE_SPECS
        and isinstance(module, str)
        and module.startswith("tensorflow.python.")
        and module in sys.modules
        and value.get("registered_name") in (None, name)
    )


def _function(value: Mapping[str, Any], layer: str, objects: KerasObjects) -> Iterator[ConfigIssue]:
    name, module = value["config"], value.get("module")
    if not isinstance(name, str):
        yield ConfigIssue(f"a function whose name is no text in layer '{layer}'")
        return
    if objects.is_registered_function(name):
        return
    called = name if module in (None, "builtins") else f"{module}.{name}"
    candidates = objects.candidates(name, module)
    second = value.get("registered_name")
    if module != "builtins" and second not in (None, name):  # tf_keras looks up this name instead, in some places
        candidates += objects.candidates(second, module) or (None,)
    if not candidates and module in (None, "builtins"):
        yield ConfigIssue(f"the function '{name}' in layer '{layer}'", kind="unknown")
    elif not candidates or not all(map(is_model_function, candidates)):
        yield ConfigIssue(f"a call of '{called}' in layer '{layer}'")


def _class(value: Mapping[str, Any], layer: str, objects: KerasObjects) -> Iterator[ConfigIssue]:
    name, module = value["class_name"], value.get("module")
    verdict = objects.verdict(name, module, value.get("registered_name", name))
    called = f"'{name}'" if module is None else f"'{name}' of '{module}'"
    if verdict == "lambda":
        yield ConfigIssue(f"a call of '{_function_of(value['config'])}' in layer '{layer}'")
    elif verdict == "refused":
        yield ConfigIssue(f"the class {called} in layer '{layer}'")
    elif verdict == "unknown":
        yield ConfigIssue(f"the class {called} in layer '{layer}'", kind="unknown")
    elif verdict == "of Keras":
        yield from _settings(value, layer)


def _function_of(config: Any) -> str:
    """Return what a Lambda layer calls, also while it is loaded (CVE-2025-1550)."""
    function = config.get("function") if isinstance(config, dict) else None
    if isinstance(function, dict):
        return f"{function.get('module')}.{function.get('config')}"
    return str(function)


def _settings(value: Mapping[str, Any], layer: str) -> Iterator[ConfigIssue]:
    """Yield the settings that a class of Keras must not have."""
    config = value["config"] if isinstance(value["config"], dict) else {}
    name = value["class_name"]
    if isinstance(config.get("vocabulary"), str):  # of StringLookup and others: CVE-2025-12058
        yield ConfigIssue(f"the reading of '{config['vocabulary']}' in layer '{layer}'")
    symbol = config.get("function")
    if name in ("TFOpLambda", "SlicingOpLambda"):
        if not is_tensor_function(symbol):
            yield ConfigIssue(f"a call of 'tf.{symbol}' in layer '{layer}'")
    elif name == "ClassMethod":
        if config.get("cls_symbol") != "RaggedTensor" or str(config.get("method_name")) not in RAGGED_CONSTRUCTORS:
            yield ConfigIssue(
                f"a call of 'tf.{config.get('cls_symbol')}.{config.get('method_name')}' in layer '{layer}'"
            )
    elif name in ("InstanceMethod", "InstanceProperty"):
        if str(config.get("attr_name")) not in (INSTANCE_METHODS if name == "InstanceMethod" else INSTANCE_PROPERTIES):
            yield ConfigIssue(f"a call of the method '{config.get('attr_name')}' in layer '{layer}'")
    elif name == "TensorFlowOpLayer":
        node = config.get("node_def")
        operation = str(node.get("op")) if isinstance(node, dict) else "?"
        if operation not in OPERATIONS:
            yield ConfigIssue(f"a call of the operation '{operation}' in layer '{layer}'")
    nodes = value.get("inbound_nodes")
    if nodes and any(_has_text(constant) for constant in _constants(nodes, symbol)):
        yield ConfigIssue(f"a call with a text in layer '{layer}'")


def _constants(nodes: Any, symbol: Any) -> Iterator[Any]:
    """Yield the constant arguments of a layer of tf_keras: ``["_CONSTANT_VALUE", -1, constant, {...}]``."""
    pending = [nodes]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            if value[:1] == ["_CONSTANT_VALUE"] and len(value) > 2:
                if not (symbol in _EINSUM and isinstance(value[2], str)):
                    yield value[2]
            else:
                pending += value


def _has_text(constant: Any) -> bool:
    pending = [constant]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            return True
        pending += value if isinstance(value, list) else value.values() if isinstance(value, dict) else []
    return False
