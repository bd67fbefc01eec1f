"""The engine of TensorFlow Model Optimization: a model rebuilt in tf_keras, prepared, trained and brought back."""

import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_precision._adapters import adapter_of
from keras_precision._adapters.data.samples import stream_samples
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision._adapters.rebuild import compile_argument, compile_like, is_compiled, rebuilt
from keras_precision.core.errors import ModelError, PlanError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.quantization.qat.tfmot.bridge import Bridge
from keras_precision.quantization.qat.tfmot.registry import is_tfmot, prepared

__all__ = ["quantized_by_tfmot", "without_tfmot"]

_ORIGINS: "weakref.WeakKeyDictionary[Any, tuple[Any, Bridge | None]]" = weakref.WeakKeyDictionary()
"""What a prepared model was made from: the model in float, and the way that it was rebuilt."""


def quantized_by_tfmot(model: Any, plan: PrecisionPlan, data: Any) -> Any:
    """Return a model of tf_keras that TensorFlow Model Optimization has prepared.

    Args:
        model: A built functional or sequential model of Keras 3 or tf_keras.
        plan: A deployment plan of int8 and float32.
        data: Samples on which a rebuilt model is compared with the first, too; None for none.

    Returns:
        The model; its ranges start with the first batches.

    Raises:
        ModelError: It cannot be rebuilt, or is refused.
        PlanError: The plan has other formats, or leaves nothing quantized.
        MissingExtraError: The package is not installed.
    """
    wanted = plan.resolve(layer_paths(model))
    others = sorted({*wanted.values()} - {"int8", "float32"})
    if others:
        raise PlanError(
            f"Expected layers in int8 or float32, which TensorFlow Model Optimization trains for. Received: {', '.join(others)}. "
            "Train them with engine='keras'."
        )
    if "int8" not in wanted.values():
        raise PlanError("Expected a plan that quantizes something. Received: one that leaves every layer in float32.")
    if adapter_of(model).keras.__name__ == "tf_keras":
        bridge, source = None, model
        kept = {layer.name for path, layer in layer_paths(model).items() if wanted[path] == "float32"}
    else:
        bridge = Bridge(model)
        source = bridge.model
        kept = {name for path, names in bridge.parts.items() if wanted[path] == "float32" for name in names}
        if data is not None:
            inputs = adapter_of(model).inputs(model)
            first = next(stream_samples(data, inputs))
            bridge.compare(model, [np.asarray(first[each.name][:8]) for each in inputs])
    made = prepared(source, lambda name: name not in kept)
    if not any(is_tfmot(layer) for layer in made.layers):
        raise PlanError("Expected a plan that quantizes something. Received: one of which nothing can be.")
    _ORIGINS[made] = (model, bridge)
    # What is told by names of outputs cannot be taken over: TFMOT gives them others.
    named = any(isinstance(compile_argument(model, each), Mapping) for each in ("loss", "loss_weights", "metrics"))
    if bridge is None and is_compiled(model) and not named:
        compile_like(adapter_of(model), made, model, scale_loss=adapter_of(model).is_loss_scaling(model.optimizer))
    return made


def without_tfmot(model: Any) -> Any:
    """Return the plain model that a prepared one stands for.

    Args:
        model: What ``quantized_by_tfmot`` returned.

    Returns:
        A model of the Keras that it was made from, with the trained weights.

    Raises:
        ModelError: It is not known what it was made from.
    """
    if model not in _ORIGINS:
        raise ModelError(
            f"Expected a model that kp.quantize_aware returned in this process. Received: '{model.name}', whose origin is not known. "
            "Load its weights into what kp.quantize_aware(original, engine='tfmot') returns: aware.load_weights(path)."
        )
    original, bridge = _ORIGINS[model]
    plain = rebuilt(adapter_of(original), original)
    plain.set_weights(original.get_weights())

    source = original if bridge is None else bridge.model

    def trained(name: str) -> list[Any]:
        layer = next(each for each in model.layers if each.name in (name, f"quant_{name}"))
        found: dict[str, list[Any]] = {}
        for weight in layer.weights:
            found.setdefault(weight.name.rpartition("/")[2], []).append(weight.numpy())
        # A wrapper takes the weights that it rounds away from its layer, and has ranges of its own.
        return [found[weight.name.rpartition("/")[2]].pop(0) for weight in source.get_layer(name).weights]

    if bridge is not None:
        bridge.bring_back(plain, trained)
    else:
        for layer in layer_paths(plain).values():
            layer.set_weights(trained(layer.name))
    return plain
