"""Models made anew from their configuration, and compiled as another model is."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision.core.errors import ModelError

__all__ = ["compile_argument", "compile_like", "forget_compiled", "is_compiled", "rebuilt", "remade"]


def rebuilt(adapter: KerasAdapter, model: Any) -> Any:
    """Return a model made from the configuration of another, as loading a file makes it.

    Its layers have the policies that their configurations carry, and weights of their own.

    Args:
        adapter: The Keras of the model.
        model: A functional or sequential model.

    Returns:
        The new model, not compiled.

    Raises:
        ModelError: Its configuration does not make a model.
    """
    if not isinstance(model, adapter.functional_classes):
        raise ModelError(
            f"Expected a functional or sequential model. Received: the subclassed model '{model.name}' of type "
            f"{type(model).__name__}, which cannot be copied. Pass in_place=True."
        )
    return remade(adapter, model, lambda config: config)


def remade(adapter: KerasAdapter, model: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Return a model made from the configuration of another, after a change of it.

    Args:
        adapter: The Keras of the model.
        model: A functional or sequential model.
        change: Given the configuration, returns the one to use.

    Returns:
        The new model, not compiled.

    Raises:
        ModelError: Its configuration does not make a model.
    """
    with _own_classes(adapter, model):
        try:
            return type(model).from_config(change(adapter.config_of(model)))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ModelError(
                f"Expected a model that can be made from its configuration. Received: '{model.name}': {error} "
                "Give its own layers a get_config, or pass in_place=True."
            ) from error


@contextmanager
def _own_classes(adapter: KerasAdapter, model: Any) -> Iterator[None]:
    """Let Keras find the classes of a model's layers, and the functions of its Lambda layers."""
    kinds = {type(layer).__name__: type(layer) for layer in adapter.walk(model)}
    # Not those of Keras: under its bare name the layer Multiply would stand for the operation Multiply, too.
    classes = {name: kind for name, kind in kinds.items() if getattr(adapter.keras.layers, name, None) is not kind}
    safe = adapter.keras.src.saving.serialization_lib.SafeModeScope
    with adapter.keras.utils.custom_object_scope(classes), safe(safe_mode=False):  # it is the caller's own code
        yield


def is_compiled(model: Any) -> bool:
    """Tell whether a model can be compiled anew as it is.

    Args:
        model: The model.

    Returns:
        Whether it has an optimizer, and what it was compiled with is known.
    """
    return getattr(model, "optimizer", None) is not None and hasattr(model, "_compile_config")


def compile_argument(model: Any, argument: str) -> Any:
    """Return what a model was compiled with.

    Args:
        model: The model.
        argument: Of ``compile``.

    Returns:
        Its value; None where there is none.
    """
    settings = getattr(getattr(model, "_compile_config", None), "config", None) or {}
    return settings.get(argument)


def compile_like(adapter: KerasAdapter, model: Any, other: Any, *, scale_loss: bool) -> None:
    """Compile a model with the settings of another.

    Args:
        adapter: The Keras of both.
        model: What is compiled.
        other: A compiled model: its losses are shared, its optimizer and metrics copied without their state.
        scale_loss: Whether the optimizer is to scale the loss.
    """
    settings = dict(other._compile_config.config)  # as passed to compile; both Kerases keep it
    optimizer = _again(_inner(adapter, other.optimizer))
    settings["optimizer"] = adapter.scaled(optimizer) if scale_loss else optimizer
    for key in ("metrics", "weighted_metrics"):
        settings[key] = _fresh(adapter, settings.get(key))
    model.compile(**settings)
    if scale_loss and model.built:
        model.optimizer.build(model.trainable_variables)  # Keras 3 cannot load a file with one that is not built


def _inner(adapter: KerasAdapter, optimizer: Any) -> Any:
    return optimizer.inner_optimizer if adapter.is_loss_scaling(optimizer) else optimizer


def _again(thing: Any) -> Any:
    return type(thing).from_config(thing.get_config())


def _fresh(adapter: KerasAdapter, metrics: Any) -> Any:
    """The same structure of metrics, each with a state of its own."""
    if isinstance(metrics, Mapping):
        return {key: _fresh(adapter, value) for key, value in metrics.items()}
    if isinstance(metrics, list | tuple):
        return [_fresh(adapter, value) for value in metrics]
    return _again(metrics) if isinstance(metrics, adapter.keras.metrics.Metric) else metrics


def forget_compiled(model: Any) -> None:
    """Make a model trace its functions anew: those that it has compute in the policies of before.

    Args:
        model: The model.
    """
    for name in ("train_function", "test_function", "predict_function"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)
