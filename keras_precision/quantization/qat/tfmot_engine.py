"""The engine of TensorFlow Model Optimization: a model is rebuilt in tf_keras, prepared, trained and restored."""

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from keras_precision._adapters import adapter_of, legacy_adapter
from keras_precision._adapters.data.samples import stream_samples
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision._adapters.model_view import ModelView, is_tfmot
from keras_precision._adapters.rebuild import compile_argument, compile_like, in_float32, is_compiled, rebuilt
from keras_precision.core.errors import ModelError, PlanError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.quantization.bias_range import has_saturated_bias, raise_weight_scales
from keras_precision.quantization.conversion import ConvertedFile, convert
from keras_precision.quantization.qat.tfmot.bridge import Bridge
from keras_precision.quantization.qat.tfmot.registry import prepare
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["convert_trained", "quantize_with_tfmot", "restore_from_tfmot"]

_ORIGINS: "weakref.WeakKeyDictionary[Any, tuple[Any, Bridge | None]]" = weakref.WeakKeyDictionary()
"""Prepared model to the original in float, and the bridge that rebuilt it in tf_keras, if any."""


def quantize_with_tfmot(model: Any, plan: PrecisionPlan, data: Any) -> Any:
    """Return a model of tf_keras that TensorFlow Model Optimization has prepared, of a model of Keras 3 or tf_keras.

    The first samples of ``data`` compare a rebuilt model with the original; ranges start with the first batches.
    Raises PlanError for other formats than int8 and float32, and ModelError for models that cannot be rebuilt.
    """
    precisions = plan.resolve(layer_paths(model))
    others = sorted({*precisions.values()} - {"int8", "float32"})
    if others:
        raise PlanError(
            f"Expected layers in int8 or float32, which TensorFlow Model Optimization trains for. Received: {', '.join(others)}. "
            "Train them with engine='keras'."
        )
    if "int8" not in precisions.values():
        raise PlanError(
            "Expected a plan that quantizes something. Received: one that leaves every layer in float32. "
            "Give some layers int8."
        )
    _check_regularizers(model)
    exact = in_float32(adapter_of(model), model)  # TFMOT knows no other, and outputs in 16 bits cannot be compared
    with _float32_policy():
        aware, bridge = _prepared(exact, precisions, data)
    _ORIGINS[aware] = (model, bridge)
    # Losses and metrics by output name cannot be reused, since TFMOT renames the outputs.
    arguments = (compile_argument(model, name) for name in ("loss", "loss_weights", "metrics"))
    by_name = any(isinstance(argument, Mapping) for argument in arguments)
    if bridge is None and is_compiled(model) and not by_name:
        compile_like(adapter_of(model), aware, model, scale_loss=adapter_of(model).is_loss_scaling(model.optimizer))
    return aware


def _prepared(model: Any, precisions: Mapping[str, str], data: Any) -> tuple[Any, Bridge | None]:
    """Return the prepared model of one in float32, and the bridge that rebuilt it, if any."""
    if adapter_of(model).keras.__name__ == "tf_keras":
        bridge, source = None, model
        float_layers = {layer.name for path, layer in layer_paths(model).items() if precisions[path] == "float32"}
    else:
        bridge = Bridge(model)
        source = bridge.model
        float_layers = {name for path, names in bridge.parts.items() if precisions[path] == "float32" for name in names}
        if data is not None:
            inputs = adapter_of(model).inputs(model)
            first = next(stream_samples(data, inputs))
            bridge.compare(model, [np.asarray(first[model_input.name][:8]) for model_input in inputs])
    aware = prepare(source, lambda name: name not in float_layers)
    if not any(is_tfmot(layer) for layer in aware.layers):
        raise PlanError(
            "Expected a plan that quantizes something. Received: one whose int8 layers have no quantized form. "
            "Train with engine='keras', or give other layers int8."
        )
    return aware, bridge


@contextlib.contextmanager
def _float32_policy() -> Iterator[None]:
    """Make layers of tf_keras in float32, whatever the policy of the caller is, and restore that."""
    mixed_precision = legacy_adapter().keras.mixed_precision
    before = mixed_precision.global_policy()
    mixed_precision.set_global_policy("float32")
    try:
        yield
    finally:
        mixed_precision.set_global_policy(before)


def _check_regularizers(model: Any) -> None:
    """Raise ModelError for layers that add a loss of their outputs, which training by TFMOT cannot find again."""
    for path, layer in layer_paths(model).items():
        if getattr(layer, "activity_regularizer", None) is not None:
            raise ModelError(
                f"Expected layers without an activity regularizer, whose loss TensorFlow Model Optimization loses. Received: '{path}' of "
                f"type {type(layer).__name__} with one. Train it with engine='keras'."
            )


def restore_from_tfmot(model: Any) -> Any:
    """Return a plain model, in the Keras version of the original, with the weights of a prepared one."""
    if model not in _ORIGINS:
        raise ModelError(
            f"Expected a model that kp.quantize_aware returned in this process. Received: '{model.name}', whose original is unknown. "
            "Load its weights into a model that is prepared here: "
            "aware = kp.quantize_aware(original, engine='tfmot'); aware.load_weights(path)."
        )
    original, bridge = _ORIGINS[model]
    plain = rebuilt(adapter_of(original), original)
    source = original if bridge is None else bridge.model

    def trained(name: str) -> list[Any]:
        layer = next(layer for layer in model.layers if layer.name in (name, f"quant_{name}"))
        values: dict[str, list[Any]] = {}
        for weight in layer.weights:
            values.setdefault(weight.name.rpartition("/")[2], []).append(weight.numpy())
        # A wrapper reorders the weights: it owns those that it quantizes, and has ranges besides.
        return [values[weight.name.rpartition("/")[2]].pop(0) for weight in source.get_layer(name).weights]

    if bridge is not None:
        bridge.restore_weights(plain, trained)
    else:
        for layer in layer_paths(plain).values():
            layer.set_weights(trained(layer.name))
    return plain


def convert_trained(view: ModelView, *, float_io: bool) -> ConvertedFile:
    """Return the file with the integers that a prepared model was trained for.

    TFLiteConverter raises the weight scales of pruned channels where it quantizes, not where scales were trained.
    """
    converted = convert(view, "trained_float_io" if float_io else "trained")
    graph = Flatbuffer(converted.content)
    if not has_saturated_bias(graph):
        return converted
    raise_weight_scales(graph, Flatbuffer(convert(view).content))
    return replace(converted, content=graph.content())
