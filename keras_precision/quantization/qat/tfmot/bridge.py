"""Bridge: a model of Keras 3 rebuilt in tf_keras, layer by layer, and its trained weights restored."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tf_keras

# Without a public name: https://github.com/keras-team/keras/blob/v3.15.1/keras/src/applications/convnext.py.
from keras.src.applications.convnext import LayerScale

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.errors import ModelError
from keras_precision.quantization.qat.tfmot.attention import attention
from keras_precision.quantization.qat.tfmot.operations import as_layer
from keras_precision.quantization.qat.tfmot.stand_ins import Expansion, activation, separate_activation, stand_in

__all__ = ["Bridge"]

Array = npt.NDArray[Any]

_TOLERANCE = 1e-4

_MAX_ROUNDING_ERROR = 1e-2
"""The largest relative error of a rebuilt model that rounding can explain."""

_ULPS = 2.0**-20
"""Eight units in the last place of float32: the relative change of samples that measures the effect of rounding."""

_ROUNDING_FACTOR = 10
"""Multiple of that effect that counts as rounding: every layer rounds, but the samples change once."""

_FOLDS_NORM = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


class Bridge:
    """A functional model of tf_keras with the outputs of a built functional or sequential model of Keras 3.

    Nested models are flattened, and a separable convolution becomes its two parts. A batch
    normalization that does not fold into a convolution becomes a depthwise convolution of size 1,
    the only form that TensorFlow Model Optimization supports; ``plain`` leaves both as they are.

    Attributes:
        model: The model of tf_keras.
        parts: Layer path to the names of its layers there.

    Raises:
        ModelError: tf_keras has no such layer or operation, or the outputs differ.
    """

    def __init__(self, model: Any, *, plain: bool = False) -> None:
        self._plain = plain
        self._paths = {id(layer): path for path, layer in layer_paths(model).items()}
        self._layers: dict[str, list[Any]] = {}
        self._expansions: dict[str, list[Any]] = {}  # layers without weights, or of one call
        self._operations = 0
        inputs = [tf_keras.Input(t.shape[1:], batch_size=t.shape[0], dtype=t.dtype, name=t.name) for t in model.inputs]
        outputs = self._run(model, inputs)
        self.model = tf_keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0], name=model.name)
        self.parts = {
            path: [part.name for part in (*self._layers.get(path, ()), *self._expansions.get(path, ()))]
            for path in {**self._layers, **self._expansions}
        }
        self._check(model)

    def _run(self, model: Any, values: Sequence[Any]) -> list[Any]:
        """Call the layers of a model on tensors of tf_keras."""
        # The graph of a model has no public form. A Sequential model has it in ``_functional``:
        # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/models/sequential.py and
        # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/ops/function.py.
        graph = getattr(model, "_functional", None) or model
        known = {id(tensor): value for tensor, value in zip(graph.inputs, values, strict=True)}
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                if isinstance(node.operation, keras.layers.InputLayer):
                    continue
                args, kwargs = node.arguments.fill_in(known)
                outputs = self._called(node, args, kwargs)
                for tensor, value in zip(node.outputs, keras.tree.flatten(outputs), strict=True):
                    known[id(tensor)] = value
        return [known[id(tensor)] for tensor in graph.outputs]

    def _called(self, node: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        layer = node.operation
        if isinstance(layer, keras.Model):
            return self._run(layer, [value for value in keras.tree.flatten((args, kwargs)) if value is not None])
        arguments = {key: value for key, value in kwargs.items() if value is not None}
        if not isinstance(layer, keras.layers.Layer):
            self._operations += 1  # operations of nested models may have the same name
            return as_layer(layer, args, arguments, f"{layer.name}__{self._operations}")
        path = self._paths[id(layer)]
        name = path.replace("/", "__")
        previous = self._expansions.get(path, ())
        call_name = f"{name}__{len(previous)}" if previous else name  # for layers of this call alone
        expansion = None if self._plain else _expanded(layer, args, arguments, call_name, again=bool(previous))
        if expansion is None:
            if path not in self._layers:
                self._layers[path] = list(self._parts(node, name))
            expansion = self._through(layer, self._layers[path], args, arguments), []
            if not self._plain and (function := separate_activation(layer)) is not None:
                expansion = activation(function, expansion[0], f"{call_name}__activation")
        value, layers = expansion
        if layers:
            self._expansions.setdefault(path, []).extend(layers)
        return value

    def _through(self, layer: Any, parts: Sequence[Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Call the parts of a layer one after the other, and copy its weights to them."""
        value = parts[0](*args, **kwargs)
        for part in parts[1:]:
            value = part(value)
        weighted = [part for part in parts if part.weights]
        kind = type(weighted[0]).__name__ if weighted else ""
        for part, weights in zip(weighted, _weights(layer, len(weighted), kind), strict=False):
            part.set_weights(weights)
            if hasattr(part, "finalize_state"):
                part.finalize_state()
        return value

    def _parts(self, node: Any, name: str) -> Iterator[Any]:
        if self._plain:
            return iter([translated(node.operation, name, whole=True)])
        return _lone_norm(node, name) if _is_lone(node) else _parts(node.operation, name)

    def _check(self, model: Any) -> None:
        generator = np.random.default_rng(0)
        shapes = [tuple(2 if not n else (size or 8) for n, size in enumerate(t.shape)) for t in model.inputs]
        samples = [
            generator.random(shape).astype(t.dtype) if "float" in str(t.dtype) else np.ones(shape, t.dtype)
            for shape, t in zip(shapes, model.inputs, strict=True)
        ]
        self.compare(model, samples)

    def compare(self, model: Any, samples: Sequence[Array]) -> None:
        """Raise ModelError unless the outputs of both models agree, for one array per input, to the effect of rounding.

        A hundred layers may amplify a rounding error beyond the tolerance (InceptionV3 with random weights: 2e-4), so
        a larger error must be explained by the outputs of the original for samples that are rounded differently.
        """
        expected, received = (adapter_of(rebuilt).answers(rebuilt, samples) for rebuilt in (model, self.model))
        errors = [float(np.abs(one - other).max()) for one, other in zip(expected, received, strict=True)]
        scales = [max(1.0, float(np.abs(output).max())) for output in expected]
        if all(error <= _TOLERANCE * scale for error, scale in zip(errors, scales, strict=True)):
            return
        perturbed = adapter_of(model).answers(model, [_perturbed(array) for array in samples])
        for number, (one, other, scale) in enumerate(zip(expected, perturbed, scales, strict=True)):
            by_rounding = min(_ROUNDING_FACTOR * float(np.abs(one - other).max()), _MAX_ROUNDING_ERROR * scale)
            if not errors[number] <= max(_TOLERANCE * scale, by_rounding):
                raise ModelError(
                    f"Expected the model rebuilt in tf_keras to compute the outputs of '{model.name}'. Received: output "
                    f"{number} off by {errors[number]:.3g}. Train it with engine='keras'."
                )

    def restore_weights(self, model: Any, trained: Callable[[str], list[Array]]) -> None:
        """Set the weights of a Keras 3 model; ``trained`` returns those of a tf_keras layer by its name."""
        for path, layer in layer_paths(model).items():
            if path in self.parts:
                weights = [weight for name in self.parts[path] for weight in trained(name)]
                kinds = {type(self.model.get_layer(name)).__name__ for name in self.parts[path]}
                _set_weights(layer, weights, is_convolution="DepthwiseConv2D" in kinds)


def _perturbed(values: Array) -> Array:
    return values * values.dtype.type(1 + _ULPS) if np.issubdtype(values.dtype, np.floating) else values


def _expanded(layer: Any, args: Any, kwargs: Mapping[str, Any], name: str, *, again: bool) -> Expansion | None:
    """Return the output and the layers for a layer that tf_keras lacks; None where it has the layer itself."""
    if type(layer) is not keras.layers.MultiHeadAttention:
        return stand_in(layer, keras.tree.flatten(args), name)
    if again:
        raise ModelError(
            f"Expected an attention that is called once. Received: '{layer.name}', called more often. Train it with engine='keras'."
        )
    return attention(layer, args, kwargs, name, translated)


def _is_lone(node: Any) -> bool:
    """Return whether a node is a batch normalization that does not fold into the previous layer."""
    if not isinstance(node.operation, keras.layers.BatchNormalization):
        return False
    (tensor,) = node.input_tensors
    before = tensor._keras_history.operation  # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/ops/node.py
    linear = getattr(before, "activation", None) in (None, keras.activations.linear)
    channels_last = node.operation.axis in (-1, len(tensor.shape) - 1)
    return channels_last and not (type(before) in _FOLDS_NORM and linear)


def _lone_norm(node: Any, name: str) -> Iterator[Any]:
    """Yield the layers for a batch normalization that does not fold: a convolution of size 1, of what is made an image."""
    (tensor,) = node.input_tensors
    *sizes, channels = tensor.shape[1:]
    is_image = len(sizes) == 2
    if not is_image:
        yield tf_keras.layers.Reshape((-1, 1, channels), name=f"{name}__image")
    yield tf_keras.layers.DepthwiseConv2D(1, name=name)
    if not is_image:
        # One size may be free, as the length of a sequence is.
        free = [-1 if size is None else size for size in sizes]
        yield tf_keras.layers.Reshape((*free, channels), name=f"{name}__shaped")


def _parts(layer: Any, name: str) -> Iterator[Any]:
    """Yield the layers of tf_keras for a layer."""
    if type(layer) is LayerScale:
        yield tf_keras.layers.DepthwiseConv2D(1, use_bias=False, name=name)
        return
    if type(layer) is keras.layers.SeparableConv2D:
        config = layer.get_config()
        shared = {
            key: config[key] for key in ("padding", "data_format", "dilation_rate", "strides", "depth_multiplier")
        }
        yield tf_keras.layers.DepthwiseConv2D(
            config["kernel_size"], **shared, use_bias=False, name=f"{name}__depthwise"
        )
        yield tf_keras.layers.Conv2D(
            config["filters"], 1, use_bias=config["use_bias"], activation=_activation(layer), name=name
        )
        return
    yield translated(layer, name)


def translated(layer: Any, name: str, *, whole: bool = False) -> Any:
    """Return the tf_keras layer with the class and configuration of one of Keras 3; ``whole``: with any activation."""
    layer_class = getattr(tf_keras.layers, type(layer).__name__, None)
    if layer_class is None or type(layer) is not getattr(keras.layers, type(layer).__name__, None):
        raise ModelError(
            f"Expected layers that tf_keras has. Received: '{layer.name}' of type {type(layer).__name__}. "
            "Train it with engine='keras'."
        )
    if type(layer) is keras.layers.Bidirectional:
        sides = (translated(side, side.name) for side in (layer.forward_layer, layer.backward_layer))
        return layer_class(next(sides), backward_layer=next(sides), merge_mode=layer.merge_mode, name=name)
    config = _config(layer_class, layer.get_config(), name)
    if not whole and separate_activation(layer) is not None:
        config["activation"] = "linear"
    try:
        return layer_class.from_config(config)
    except TypeError as error:
        *_, reason = str(error).splitlines()  # the lines before are the whole configuration
        raise ModelError(
            f"Expected layers that tf_keras can build. Received: '{layer.name}' of type {type(layer).__name__}: {reason} "
            "Train it with engine='keras'."
        ) from error


def _activation(layer: Any) -> Any:
    return "linear" if separate_activation(layer) is not None else layer.get_config()["activation"]


def _config(layer_class: type, config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the configuration that tf_keras accepts, without initializers, since weights are set afterwards."""
    accepted = {key for base in layer_class.__mro__ for key in inspect.signature(base.__init__).parameters}  # type: ignore[misc]
    readable = {
        key: _plain(value)
        for key, value in config.items()
        if key in accepted and not key.endswith("_initializer") and key not in ("dtype", "quantization_config")
    }
    return {**readable, "name": name, "trainable": config.get("trainable", True)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping) and "class_name" in value:
        return {"class_name": value["class_name"], "config": value["config"]}
    return value


def _weights(layer: Any, parts: int, kind: str) -> Iterator[list[Array]]:
    """Yield the weights of every part of a layer."""
    weights = layer.get_weights()
    if isinstance(layer, LayerScale):
        yield [weights[0].reshape(1, 1, -1, 1)]
    elif parts == 2:
        yield weights[:1]
        yield weights[1:]
    elif isinstance(layer, keras.layers.BatchNormalization) and kind == "DepthwiseConv2D":
        gamma, beta, mean, variance = _norm(layer)
        factor = gamma / np.sqrt(variance + layer.epsilon)
        yield [factor.reshape(1, 1, -1, 1), beta - mean * factor]
    elif isinstance(layer, keras.layers.Normalization):
        yield [*weights[:2], np.zeros((), "int64")]
    else:
        yield weights


def _norm(layer: Any) -> tuple[Array, Array, Array, Array]:
    mean, variance = (
        np.asarray(keras.ops.convert_to_numpy(weight)) for weight in (layer.moving_mean, layer.moving_variance)
    )
    gamma = np.asarray(keras.ops.convert_to_numpy(layer.gamma)) if layer.scale else np.ones_like(mean)
    beta = np.asarray(keras.ops.convert_to_numpy(layer.beta)) if layer.center else np.zeros_like(mean)
    return gamma, beta, mean, variance


def _set_weights(layer: Any, values: list[Array], *, is_convolution: bool) -> None:
    if isinstance(layer, keras.layers.BatchNormalization) and is_convolution:
        factor, shift = values
        _, _, mean, variance = _norm(layer)
        deviation = np.sqrt(variance + layer.epsilon)
        flat = factor.reshape(-1)
        # A layer without gamma or beta stores the factor and the shift in its statistics.
        if layer.scale:
            layer.gamma.assign(flat * deviation)
        else:
            layer.moving_variance.assign(1 / flat**2 - layer.epsilon)
        if layer.center:
            layer.beta.assign(shift + mean * flat)
        else:
            layer.moving_mean.assign(-shift / flat)
        return
    shapes = [weight.shape for weight in layer.get_weights()]  # LayerScale is a convolution there
    layer.set_weights([value.reshape(shape) for value, shape in zip(values, shapes, strict=False)])
