"""recompile: a model compiled again, with what it was compiled with."""

from typing import Any

from keras_precision._adapters import adapter_of
from keras_precision._adapters.rebuild import compile_like, is_compiled, rebuilt_with
from keras_precision.core.errors import ModelError

__all__ = ["recompile"]


def recompile(
    model: Any,
    *,
    like: Any = None,
    new_weights: bool = False,
    optimizer: Any = None,
    loss: Any = None,
    loss_scaling: bool = False,
    **options: Any,
) -> Any:
    """Compile a model with the optimizer, loss and metrics that it has, or that another model has, except those given.

    Args:
        model: A Keras 3 or tf_keras model; it is changed, unless it gets new weights.
        like: The compiled model whose arguments of ``compile`` are used, with copies of its optimizer and metrics without
            state; None for the model itself, whose optimizer keeps its state.
        new_weights: Whether to return a copy with new weights instead: a training that broke may have lost those of the model.
        optimizer: Another optimizer.
        loss: Another loss.
        loss_scaling: Whether to scale the loss: around the optimizer, without the loss scaling that it may have.
        **options: Of that loss scaling: ``initial_scale``, and in Keras 3 also ``min_scale``, ``max_scale`` and
            ``dynamic_growth_steps``, as of ``kp.LossScaleOptimizer``. tf_keras has a floor of 1, and ignores them.

    Returns:
        The model, or the copy.

    Raises:
        ModelError: It is not a Keras model, not compiled, or cannot be rebuilt from its configuration.
        InputError: The bounds of the scale are out of order.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse", metrics=["mae"])
        >>> recompile(model, loss_scaling=True, min_scale=0.5).optimizer.min_scale, model.loss
        (0.5, 'mse')
    """
    adapter, source = adapter_of(model), model if like is None else like
    if not is_compiled(source):
        raise ModelError(f"Expected a compiled model. Received: '{source.name}' without optimizer. Call compile first.")
    if new_weights:
        model = rebuilt_with(adapter, model, lambda config: config)
    if model is not source:
        compile_like(adapter, model, source, scale_loss=adapter.is_loss_scaling(source.optimizer))
    # The arguments of compile, as in compile_like
    settings = model._compile_config.config | {"optimizer": optimizer or model.optimizer}
    if loss is not None:
        settings["loss"] = loss
    if loss_scaling:
        unscaled = adapter.unscaled(adapter.keras.optimizers.get(settings["optimizer"]))
        settings["optimizer"] = adapter.scaled(unscaled, **options)
    model.compile(**settings)
    return model
