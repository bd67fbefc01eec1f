"""Rebuilding models from their configuration, and compiling them like another model."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision._adapters.copy_check import check_copy, has_foreign_layers
from keras_precision._adapters.layer_paths import paths_of
from keras_precision._adapters.layer_state import copy_state, state_in_config
from keras_precision.core.errors import ModelError

__all__ = [
    "compile_argument",
    "compile_like",
    "expect_faithful_copies",
    "forget_compiled",
    "in_float16",
    "in_float32",
    "is_compiled",
    "rebuilt",
    "rebuilt_with",
]

_NARROW_FLOATS = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


def rebuilt(adapter: KerasAdapter, model: Any) -> Any:
    """Return an uncompiled copy of a model: its policies, weights and other state, checked on made-up inputs."""
    if not isinstance(model, adapter.functional_classes):
        raise ModelError(
            f"Expected a functional or sequential model. Received: the subclassed model '{model.name}' of type "
            f"{type(model).__name__}, which cannot be copied. Pass in_place=True."
        )
    copy = rebuilt_with(adapter, model, lambda config: config)
    copy_state(adapter, model, copy)
    check_copy(adapter, model, copy)
    return copy


def expect_faithful_copies(adapter: KerasAdapter, model: Any) -> None:
    """Raise ModelError where a copy of a model loses state, before one in other precisions hides it."""
    if has_foreign_layers(adapter, model):
        rebuilt(adapter, model)


def in_float32(adapter: KerasAdapter, model: Any) -> Any:
    """Return a model in float32 with the same weights and other state: itself if it is in float32, else a copy."""
    if all(adapter.policy_name(layer) not in _NARROW_FLOATS for layer in adapter.walk(model)):
        return model
    expect_faithful_copies(adapter, model)
    copy = rebuilt_with(adapter, model, _to_float32)
    copy_state(adapter, model, copy)
    return copy


def in_float16(adapter: KerasAdapter, model: Any, except_layers: Collection[str] = ()) -> Any:
    """Return an uncompiled copy of a model in mixed_float16, with some layers, named by their paths, in float32."""
    copy = rebuilt(adapter, model)
    high = {
        id(inner)
        for path, layer in paths_of(adapter, copy).items()
        if path in except_layers
        for inner in adapter.walk(layer)
    }
    for layer in adapter.walk(copy):
        if id(layer) not in high and not adapter.is_lookup(layer):
            adapter.set_policy(layer, "mixed_float16")
    return copy


def _to_float32(config: Any) -> Any:
    """Return a layer's configuration with all 16-bit policies, also nested ones, replaced by float32."""
    if isinstance(config, Mapping):
        if config.get("class_name") in ("DTypePolicy", "Policy", "DTypePolicyMap"):
            name = config["config"].get("name")
            return config if isinstance(name, str) and "int" in name else "float32"
        return {
            key: "float32" if key == "dtype" and value in _NARROW_FLOATS else _to_float32(value)
            for key, value in config.items()
        }
    if isinstance(config, tuple):
        return tuple(_to_float32(value) for value in config)
    if isinstance(config, Sequence) and not isinstance(config, str | bytes):  # tf_keras has wrapped lists, too
        return [_to_float32(value) for value in config]
    return config


def rebuilt_with(adapter: KerasAdapter, model: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Return an uncompiled model from the changed configuration of another, with new weights."""
    with _own_classes(adapter, model), state_in_config(adapter, model):
        try:
            return type(model).from_config(change(adapter.config_of(model)))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ModelError(
                f"Expected a model that can be rebuilt from its configuration. Received: '{model.name}': {error} "
                "Implement get_config in its custom layers, or pass in_place=True."
            ) from error


@contextmanager
def _own_classes(adapter: KerasAdapter, model: Any) -> Iterator[None]:
    """Register the classes of a model's layers and optimizer and of what they hold, and allow the functions of Lambda layers."""
    owners = [*adapter.walk(model), *_optimizers(adapter, model)]
    parts = [part for owner in owners for part in (owner, *vars(owner).values()) if hasattr(part, "get_config")]
    kinds = {type(part).__name__: type(part) for part in parts}
    # Without Keras's own: the name of the layer Multiply would also stand for the operation Multiply.
    own = adapter.keras.__name__
    classes = {name: kind for name, kind in kinds.items() if kind.__module__.partition(".")[0] != own}
    # from_config has no argument safe_mode, only load_model has, and the public switch is global:
    # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/saving/serialization_lib.py,
    # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/saving/serialization_lib.py
    safe = adapter.keras.src.saving.serialization_lib.SafeModeScope
    with adapter.keras.utils.custom_object_scope(classes), safe(safe_mode=False):  # the code is the caller's own
        yield


def _optimizers(adapter: KerasAdapter, model: Any) -> list[Any]:
    """The optimizer of a model, and the one inside its loss scaling; none if it has none."""
    optimizer = getattr(model, "optimizer", None)
    return [] if optimizer is None else [optimizer, adapter.unscaled(optimizer)]


def is_compiled(model: Any) -> bool:
    """Tell whether a model has an optimizer, and its arguments of ``compile`` are known."""
    return getattr(model, "optimizer", None) is not None and hasattr(model, "_compile_config")


def compile_argument(model: Any, argument: str) -> Any:
    """Return an argument that a model was compiled with; None where there is none."""
    settings = getattr(getattr(model, "_compile_config", None), "config", None) or {}
    return settings.get(argument)


def compile_like(adapter: KerasAdapter, model: Any, other: Any, *, scale_loss: bool) -> None:
    """Compile a model like another one, with the same losses, and copies of optimizer and metrics without state."""
    # The arguments of compile, which get_compile_config returns only serialized:
    # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/trainers/trainer.py,
    # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/engine/training.py
    settings = dict(other._compile_config.config)
    with _own_classes(adapter, other):
        optimizer = _copy_without_state(adapter.unscaled(other.optimizer))
    settings["optimizer"] = adapter.scaled(optimizer) if scale_loss else optimizer
    for key in ("metrics", "weighted_metrics"):
        settings[key] = _copy_metrics(adapter, settings.get(key))
    model.compile(**settings)
    if scale_loss and model.built:
        model.optimizer.build(model.trainable_variables)  # Keras 3 cannot load a file with an unbuilt optimizer


def _copy_without_state(thing: Any) -> Any:
    return type(thing).from_config(thing.get_config())


def _copy_metrics(adapter: KerasAdapter, metrics: Any) -> Any:
    """Return the same structure of metrics with new states."""
    if isinstance(metrics, Mapping):
        return {key: _copy_metrics(adapter, value) for key, value in metrics.items()}
    if isinstance(metrics, list | tuple):
        return [_copy_metrics(adapter, value) for value in metrics]
    return _copy_without_state(metrics) if isinstance(metrics, adapter.keras.metrics.Metric) else metrics


def forget_compiled(model: Any) -> None:
    """Make a model trace its functions again: the existing ones compute in the former policies."""
    for name in ("train_function", "test_function", "predict_function"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)
