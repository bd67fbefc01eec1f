"""A model with wrappers around its layers, and without them: made from its configuration, with its weights."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from keras_precision._adapters import KerasAdapter
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision._adapters.rebuild import remade
from keras_precision.quantization.qat.layers.quantize_wrapper import QuantizeWrapper

__all__ = ["unwrapped", "wrapped", "wrappers"]

_ENTRY = ("module", "class_name", "config", "registered_name", "build_config")


def wrappers(model: Any) -> dict[str, QuantizeWrapper]:
    """Return the wrapped layers of a model.

    Args:
        model: A model of Keras 3.

    Returns:
        Path to wrapper; empty where the model is in float.
    """
    return {path: layer for path, layer in layer_paths(model).items() if isinstance(layer, QuantizeWrapper)}


def wrapped(adapter: KerasAdapter, model: Any, options: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return a copy of a model with wrappers around some layers.

    Args:
        adapter: Keras 3.
        model: A functional or sequential model.
        options: Path of a layer to the options of its wrapper.

    Returns:
        The copy, with the same weights and names, not compiled.

    Raises:
        ModelError: The model cannot be made from its configuration.
    """
    wanted = {id(layer): options[path] for path, layer in layer_paths(model).items() if path in options}

    def wrap(layer: Any, entry: dict[str, Any]) -> dict[str, Any]:
        if id(layer) not in wanted:
            return entry
        inner = {key: entry[key] for key in _ENTRY if key in entry}
        config = {"name": entry["config"]["name"], **wanted[id(layer)], "layer": inner}
        return {**_without_build(entry), **_identity(QuantizeWrapper), "config": config}

    return _remade(adapter, model, wrap)


def unwrapped(adapter: KerasAdapter, model: Any) -> Any:
    """Return a copy of a model without wrappers.

    Args:
        adapter: Keras 3.
        model: A functional or sequential model.

    Returns:
        The copy, in float, with the same weights and names, not compiled.
    """

    def unwrap(layer: Any, entry: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(layer, QuantizeWrapper):
            return entry
        inner = entry["config"]["layer"]
        plain = {**entry, **inner, "config": {**inner["config"], "name": entry["config"]["name"]}}
        return (
            {**plain, "inbound_nodes": _fitted(layer.layer, entry["inbound_nodes"])}
            if "inbound_nodes" in entry
            else plain
        )

    return _remade(adapter, model, unwrap)


def _remade(adapter: KerasAdapter, model: Any, change: Callable[[Any, dict[str, Any]], dict[str, Any]]) -> Any:
    def changed(owner: Any, config: dict[str, Any]) -> dict[str, Any]:
        entries = []
        for entry in config["layers"]:
            layer = owner.get_layer(entry.get("name") or entry["config"]["name"]) if _is_layer(owner, entry) else None
            if layer is not None and adapter.is_model(layer) and isinstance(layer, adapter.functional_classes):
                entries.append({**entry, "config": changed(layer, entry["config"])})
            else:
                entries.append(change(layer, entry))
        return {**config, "layers": entries}

    made = remade(adapter, model, lambda config: changed(model, copy.deepcopy(config)))
    _copy_weights(model, made)
    return made


def _is_layer(owner: Any, entry: Mapping[str, Any]) -> bool:
    """Whether an entry is a layer of a model, and not an input or an operation that is none."""
    name = entry.get("name") or entry["config"]["name"]
    return any(layer.name == name for layer in owner.layers)


def _copy_weights(model: Any, copy_of_it: Any) -> None:
    new = layer_paths(copy_of_it)
    for path, layer in layer_paths(model).items():
        target = _bare(new[path])
        target.set_weights(_bare(layer).get_weights())
        finalize = getattr(target, "finalize_state", None)
        if finalize is not None:  # Normalization keeps constants that it computes from its weights
            finalize()


def _fitted(layer: Any, nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The calls of a wrapper without the arguments (a mask, None) that its layer does not take."""
    taken = layer._call_signature.parameters
    return [
        {**node, "kwargs": {key: value for key, value in node["kwargs"].items() if key in taken or value is not None}}
        for node in nodes
    ]


def _bare(layer: Any) -> Any:
    return layer.layer if isinstance(layer, QuantizeWrapper) else layer


def _identity(layer_class: type) -> dict[str, Any]:
    return {
        "module": layer_class.__module__,
        "class_name": layer_class.__name__,
        "registered_name": f"keras_precision>{layer_class.__name__}",
    }


def _without_build(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "build_config"}
