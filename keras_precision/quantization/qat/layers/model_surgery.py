"""Wrapping and unwrapping the layers of a model, by rebuilding it from its configuration with its weights."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from keras_precision._adapters import KerasAdapter
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision._adapters.layer_state import copy_state
from keras_precision._adapters.rebuild import expect_faithful_copies, rebuilt_with
from keras_precision.quantization.qat.layers.quantize_wrapper import QuantizeWrapper
from keras_precision.quantization.qat.layers.sample_buffer import SampleBuffer

__all__ = ["insert_sample_buffers", "unwrap_layers", "wrap_layers", "wrappers"]

_ENTRY = ("module", "class_name", "config", "registered_name", "build_config")


def wrappers(model: Any) -> dict[str, QuantizeWrapper]:
    """Return the wrappers of a model of Keras 3 by layer path; none where the model is in float."""
    return {path: layer for path, layer in layer_paths(model).items() if isinstance(layer, QuantizeWrapper)}


def wrap_layers(adapter: KerasAdapter, model: Any, options: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return an uncompiled copy of a model, of the same weights and names, with wrappers by layer path and options.

    Raises ModelError where the model cannot be rebuilt from its configuration.
    """
    layer_options = {id(layer): options[path] for path, layer in layer_paths(model).items() if path in options}

    def wrap(layer: Any, entry: dict[str, Any]) -> dict[str, Any]:
        if id(layer) not in layer_options:
            return entry
        inner = {key: entry[key] for key in _ENTRY if key in entry}
        config = {"name": entry["config"]["name"], **layer_options[id(layer)], "layer": inner}
        return {**_without_build(entry), **_identity(QuantizeWrapper), "config": config}

    return _rebuilt(adapter, model, wrap, lambda config: config)


def insert_sample_buffers(adapter: KerasAdapter, model: Any, *, follows_training: bool) -> Any:
    """Return an uncompiled copy of a model with a buffer of samples behind each of its inputs."""

    def insert(config: dict[str, Any]) -> dict[str, Any]:
        entries = []
        inputs = [entry["config"]["name"] for entry in config["layers"] if entry["class_name"] == "InputLayer"]
        # Numbers, as the name of a layer is a scope of TensorFlow, which takes no letters beyond ASCII; that of an input is none.
        names = {name: f"input_{number}_samples" for number, name in enumerate(inputs)}
        for entry in config["layers"]:
            entries.append(_with_other_sources(entry, names))
            if entry["class_name"] == "InputLayer":
                entries.append(_buffer_entry(entry, names, follows_training=follows_training))
        return {**config, "layers": entries}

    return _rebuilt(adapter, model, lambda _, entry: entry, insert)


def _buffer_entry(entry: Mapping[str, Any], names: Mapping[str, str], *, follows_training: bool) -> dict[str, Any]:
    """Return the configuration of a buffer behind an input, whose entry is given."""
    settings = entry["config"]
    config = {"name": names[settings["name"]], "input_dtype": settings["dtype"], "follows_training": follows_training}
    buffer = {**_identity(SampleBuffer), "config": config}
    if "inbound_nodes" not in entry:
        return buffer
    source = {"shape": settings["batch_shape"], "dtype": settings["dtype"], "keras_history": [settings["name"], 0, 0]}
    node = {"args": [{"class_name": "__keras_tensor__", "config": source}], "kwargs": {}}
    return {**buffer, "name": config["name"], "inbound_nodes": [node]}


def _without_buffers(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a model without its buffers of samples."""
    buffers = [entry for entry in config["layers"] if entry["class_name"] == SampleBuffer.__name__]
    names = {entry["config"]["name"]: _source_of(entry) for entry in buffers if "inbound_nodes" in entry}
    entries = [entry for entry in config["layers"] if entry not in buffers]
    return {**config, "layers": [_with_other_sources(entry, names) for entry in entries]}


def _source_of(buffer: Mapping[str, Any]) -> str:
    """Return the name of the input behind which a buffer is."""
    (node,) = buffer["inbound_nodes"]
    return str(node["args"][0]["config"]["keras_history"][0])


def _with_other_sources(entry: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the entry of a layer that reads the outputs of other layers, by their names."""

    def renamed(value: Any) -> Any:
        if isinstance(value, Mapping):
            if value.get("class_name") != "__keras_tensor__":
                return {key: renamed(item) for key, item in value.items()}
            name, *place = value["config"]["keras_history"]
            return {**value, "config": {**value["config"], "keras_history": [names.get(name, name), *place]}}
        return [renamed(item) for item in value] if isinstance(value, list | tuple) else value

    return {**entry, "inbound_nodes": renamed(entry["inbound_nodes"])} if "inbound_nodes" in entry else entry


def unwrap_layers(adapter: KerasAdapter, model: Any) -> Any:
    """Return an uncompiled copy of a model in float, without wrappers and buffers, and with the same weights and names."""

    def unwrap(layer: Any, entry: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(layer, QuantizeWrapper):
            return entry
        inner = entry["config"]["layer"]
        plain = {**entry, **inner, "config": {**inner["config"], "name": entry["config"]["name"]}}
        if "inbound_nodes" not in entry:
            return plain
        return {**plain, "inbound_nodes": _accepted_calls(layer.layer, entry["inbound_nodes"])}

    return _rebuilt(adapter, model, unwrap, _without_buffers)


def _rebuilt(
    adapter: KerasAdapter,
    model: Any,
    change: Callable[[Any, dict[str, Any]], dict[str, Any]],
    finish: Callable[[dict[str, Any]], dict[str, Any]],
) -> Any:
    def changed(owner: Any, config: dict[str, Any]) -> dict[str, Any]:
        entries = []
        for entry in config["layers"]:
            layer = owner.get_layer(entry.get("name") or entry["config"]["name"]) if _is_layer(owner, entry) else None
            if layer is not None and adapter.is_model(layer) and isinstance(layer, adapter.functional_classes):
                entries.append({**entry, "config": changed(layer, entry["config"])})
            else:
                entries.append(change(layer, entry))
        return {**config, "layers": entries}

    expect_faithful_copies(adapter, model)
    result = rebuilt_with(adapter, model, lambda config: finish(changed(model, copy.deepcopy(config))))
    copied = layer_paths(result)
    for path, layer in layer_paths(model).items():
        copy_state(adapter, _bare(layer), _bare(copied[path]))
    return result


def _is_layer(owner: Any, entry: Mapping[str, Any]) -> bool:
    """Return whether an entry is a layer of a model, and not an input or an operation."""
    name = entry.get("name") or entry["config"]["name"]
    return any(layer.name == name for layer in owner.layers)


def _accepted_calls(layer: Any, nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the calls of a wrapper without the arguments that its layer does not accept: a mask, or None."""
    # A wrapper is passed every mask on its way, which Keras itself hands on to the outputs of a layer without one.
    # The signature of ``call``, which Keras itself inspects:
    # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/layers/layer.py.
    accepted = layer._call_signature.parameters

    def is_kept(name: str, value: Any) -> bool:
        return name in accepted or (value is not None and name != "mask")

    return [
        {**node, "kwargs": {name: value for name, value in node["kwargs"].items() if is_kept(name, value)}}
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
