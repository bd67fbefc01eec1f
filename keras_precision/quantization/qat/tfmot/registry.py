"""Preparation of models by TensorFlow Model Optimization, with configurations for layers that it does not support."""

import os
from collections.abc import Callable
from typing import Any, Literal

from keras_precision._adapters import legacy_adapter
from keras_precision._adapters.layer_state import copy_state, state_in_config
from keras_precision.core.errors import InputError, ModelError
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.optional import require

__all__ = ["TfmotConfig", "prepare", "register_tfmot_config"]

TfmotConfig = Literal["output", "float"] | tuple[str, ...]
"""``"output"``: quantize the output; ``"float"``: no range of its own; names: quantize weights and activation."""

_INPUT_SCALE_LAYERS = """
AveragePooling1D AveragePooling2D MaxPooling1D MaxPooling2D MaxPooling3D GlobalMaxPooling1D GlobalMaxPooling2D Flatten Reshape
Permute RepeatVector ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D UpSampling1D UpSampling2D UpSampling3D
Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianNoise GaussianDropout AlphaDropout ActivityRegularization
Masking
"""
_CONFIGS: dict[str, TfmotConfig] = {
    **dict.fromkeys(_INPUT_SCALE_LAYERS.split(), "float"),
    "Conv1D": ("kernel",),
    "EinsumDense": ("kernel",),
}


_ACTIVATIONS = ("linear", "relu", "relu6", "swish", "gelu", "softmax", "sigmoid", "tanh")
"""What TFMOT's own configuration of ``Activation`` takes; of others the output is quantized:
https://github.com/tensorflow/model-optimization/blob/v0.8.1/tensorflow_model_optimization/python/core/quantization/keras/default_8bit/default_8bit_quantize_registry.py."""


def register_tfmot_config(layer_class: str, config: TfmotConfig) -> None:
    """Register how TensorFlow Model Optimization quantizes layers of a class that it does not support.

    Args:
        layer_class: The name of the class in tf_keras.
        config: ``"output"`` (quantize the output), ``"float"`` (no range of its own), or the names of
            the attributes with weights to quantize, together with the activation.

    Raises:
        InputError: The configuration is none of these.

    Example:
        >>> register_tfmot_config("LayerNormalization", "output")
    """
    if config not in ("output", "float") and not (
        isinstance(config, tuple) and all(isinstance(w, str) for w in config)
    ):
        raise InputError(
            f"Expected 'output', 'float' or a tuple of attributes. Received: {config!r}. Pass the names of the "
            "attributes with weights, such as ('kernel',)."
        )
    _CONFIGS[layer_class] = config


def prepare(model: Any, is_quantized: Callable[[str], bool]) -> Any:
    """Return a copy of a tf_keras model that TensorFlow Model Optimization has prepared, with layers selected by name.

    Raises ModelError where it refuses the model.
    """
    tools = _tools()
    tf_keras = require("tf_keras", extra="qat")
    defaults = require(_DEFAULT + ".default_8bit_quantize_registry", extra="qat")
    configs = require(_DEFAULT + ".default_8bit_quantize_configs", extra="qat")
    registry = defaults.Default8BitQuantizeRegistry()

    def annotate(layer: Any) -> Any:
        copy = layer.__class__.from_config(layer.get_config())
        kind = type(layer).__name__
        config = _CONFIGS.get(kind)
        if not is_quantized(layer.name):
            return copy
        if config == "float":  # no range of its own, but an input of the model before it has one
            return tools.quantize_annotate_layer(copy, defaults.Default8BitQuantizeConfig([], [], False))
        takes = kind != "Activation" or layer.activation.__name__ in _ACTIVATIONS
        if config is None and takes and (registry.supports(layer) or kind == "BatchNormalization"):
            return tools.quantize_annotate_layer(copy)
        if isinstance(config, tuple):
            return tools.quantize_annotate_layer(
                copy, defaults.Default8BitQuantizeConfig(list(config), ["activation"], False)
            )
        return tools.quantize_annotate_layer(copy, configs.Default8BitOutputQuantizeConfig())

    known = {
        "Default8BitOutputQuantizeConfig": configs.Default8BitOutputQuantizeConfig
    }  # quantize_scope lacks this class
    known |= {type(layer).__name__: type(layer) for layer in model.layers if not _is_of_keras(tf_keras, layer)}
    with capture_output("TensorFlow Model Optimization"), tools.quantize_scope(known):
        try:
            prepared = tools.quantize_apply(_annotated(tf_keras, model, annotate))
        except (ValueError, RuntimeError, TypeError, AttributeError, KeyError, NotImplementedError) as error:
            raise ModelError(
                f"Expected a model that TensorFlow Model Optimization supports. Received: '{model.name}': {error} "
                "Train it with engine='keras', or leave that layer in float by a plan."
            ) from error
    for layer in prepared.submodules:
        if isinstance(layer, tf_keras.layers.Normalization):
            layer.finalize_state()  # quantize_apply copies weights, and not the constants that follow from them
    return prepared


def _annotated(tf_keras: Any, model: Any, annotate: Callable[[Any], Any]) -> Any:
    """Return a copy of a model with annotated layers, and all of its state."""
    adapter = legacy_adapter()
    with state_in_config(adapter, model):
        annotated = tf_keras.models.clone_model(model, clone_function=annotate)
    for layer in annotated.layers:
        is_annotated = type(layer).__module__.startswith("tensorflow_model_optimization")
        copied = layer.layer if is_annotated else layer
        copy_state(adapter, model.get_layer(copied.name), copied)
    return annotated


def _is_of_keras(tf_keras: Any, layer: Any) -> bool:
    return getattr(tf_keras.layers, type(layer).__name__, None) is type(layer)


# The default configurations are internal modules without a public name:
# https://github.com/tensorflow/model-optimization/blob/v0.8.1/tensorflow_model_optimization/python/core/quantization/keras/default_8bit/default_8bit_quantize_configs.py.
_DEFAULT = "tensorflow_model_optimization.python.core.quantization.keras.default_8bit"


def _tools() -> Any:
    """Return the module, imported without side effects on ``tf.keras`` and the environment."""
    # Its import sets TF_USE_LEGACY_KERAS, which would turn ``tf.keras`` of this process, unless it was used before, and
    # of every child process into tf_keras:
    # https://github.com/tensorflow/model-optimization/blob/v0.8.1/tensorflow_model_optimization/python/core/keras/compat.py.
    tensorflow = require("tensorflow", extra="qat")
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    getattr(tensorflow.keras, "layers", None)  # binds tf.keras to Keras 3 now
    try:
        with capture_output("TensorFlow Model Optimization"):
            module = require("tensorflow_model_optimization", extra="qat")
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before
    return module.quantization.keras
