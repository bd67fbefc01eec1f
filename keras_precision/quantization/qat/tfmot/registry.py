"""TensorFlow Model Optimization: imported without its traces, and told what it does not know."""

import os
from collections.abc import Callable
from typing import Any, Literal

from keras_precision.core.errors import InputError, ModelError
from keras_precision.core.system.captured_output import captured
from keras_precision.core.system.optional import require

__all__ = ["TfmotConfig", "is_tfmot", "prepared", "register_tfmot_config"]

TfmotConfig = Literal["output", "float"] | tuple[str, ...]
"""Quantize the output; give it no range of its own; or quantize these weights, and the activation."""

_ON_THE_INPUTS_SCALE = """
AveragePooling1D AveragePooling2D MaxPooling1D MaxPooling2D MaxPooling3D GlobalMaxPooling1D GlobalMaxPooling2D Flatten Reshape
Permute RepeatVector ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D UpSampling1D UpSampling2D UpSampling3D
Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianNoise GaussianDropout AlphaDropout ActivityRegularization
Masking
"""
_CONFIGS: dict[str, TfmotConfig] = {
    **dict.fromkeys(_ON_THE_INPUTS_SCALE.split(), "float"),
    "Conv1D": ("kernel",),
    "EinsumDense": ("kernel",),
}


def register_tfmot_config(layer_class: str, config: TfmotConfig) -> None:
    """Say how TensorFlow Model Optimization quantizes layers of a class that it does not know.

    Args:
        layer_class: The name of the class in tf_keras.
        config: ``"output"``, ``"float"``, or the names of the attributes that hold weights.

    Raises:
        InputError: It is none of these.

    Example:
        >>> register_tfmot_config("LayerNormalization", "output")
    """
    if config not in ("output", "float") and not (
        isinstance(config, tuple) and all(isinstance(w, str) for w in config)
    ):
        raise InputError(f"Expected 'output', 'float' or a tuple of attributes. Received: {config!r}.")
    _CONFIGS[layer_class] = config


def is_tfmot(layer: Any) -> bool:
    """Tell whether a layer is a wrapper of TensorFlow Model Optimization.

    Args:
        layer: A layer.

    Returns:
        True for those that quantize.
    """
    return type(layer).__module__.startswith("tensorflow_model_optimization") and hasattr(layer, "quantize_config")


def prepared(model: Any, wants: Callable[[str], bool]) -> Any:
    """Return a copy of a model that TensorFlow Model Optimization has prepared for training.

    Args:
        model: A functional or sequential model of tf_keras.
        wants: Given the name of a layer, whether it is to be quantized.

    Returns:
        The copy, with the same weights.

    Raises:
        MissingExtraError: The package, or tf_keras, is not installed.
        ModelError: It refuses the model.
    """
    tools = _tools()
    tf_keras = require("tf_keras", extra="qat")
    defaults = require(_DEFAULT + ".default_8bit_quantize_registry", extra="qat")
    configs = require(_DEFAULT + ".default_8bit_quantize_configs", extra="qat")
    registry = defaults.Default8BitQuantizeRegistry()

    def annotated(layer: Any) -> Any:
        copy = layer.__class__.from_config(layer.get_config())
        kind = type(layer).__name__
        chosen = _CONFIGS.get(kind)
        if not wants(layer.name):
            return copy
        if chosen == "float":  # no range of its own; the model's input before it gets one
            return tools.quantize_annotate_layer(copy, defaults.Default8BitQuantizeConfig([], [], False))
        if chosen is None and (registry.supports(layer) or kind == "BatchNormalization"):
            return tools.quantize_annotate_layer(copy)
        if isinstance(chosen, tuple):
            return tools.quantize_annotate_layer(
                copy, defaults.Default8BitQuantizeConfig(list(chosen), ["activation"], False)
            )
        return tools.quantize_annotate_layer(copy, configs.Default8BitOutputQuantizeConfig())

    known = {"Default8BitOutputQuantizeConfig": configs.Default8BitOutputQuantizeConfig}  # its own scope lacks it
    known |= {type(layer).__name__: type(layer) for layer in model.layers if not _is_of_keras(tf_keras, layer)}
    with captured("TensorFlow Model Optimization"), tools.quantize_scope(known):
        try:
            marked = tf_keras.models.clone_model(model, clone_function=annotated)
            marked.set_weights(model.get_weights())
            return tools.quantize_apply(marked)
        except (ValueError, RuntimeError, TypeError, AttributeError, KeyError, NotImplementedError) as error:
            raise ModelError(
                f"Expected a model that TensorFlow Model Optimization takes. Received: '{model.name}': {error} "
                "Train it with engine='keras', or leave that layer in float by a plan."
            ) from error


def _is_of_keras(tf_keras: Any, layer: Any) -> bool:
    return getattr(tf_keras.layers, type(layer).__name__, None) is type(layer)


_DEFAULT = "tensorflow_model_optimization.python.core.quantization.keras.default_8bit"


def _tools() -> Any:
    """The module, imported so that ``tf.keras`` and the environment are what they were.

    Its import sets TF_USE_LEGACY_KERAS, which would turn ``tf.keras`` of this process, if nobody has
    used it yet, and Keras in every child, into tf_keras.
    """
    tensorflow = require("tensorflow", extra="qat")
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    getattr(tensorflow.keras, "layers", None)  # decides now which Keras it is
    try:
        with captured("TensorFlow Model Optimization"):
            module = require("tensorflow_model_optimization", extra="qat")
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before
    return module.quantization.keras
