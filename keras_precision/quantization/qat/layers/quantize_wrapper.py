"""QuantizeWrapper: a layer of Keras 3 that trains while it computes like its integer kernel."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_precision.core.errors import InputError, ModelError, UnknownPrecisionError
from keras_precision.quantization.qat.layers.activation_range import ActivationRange
from keras_precision.quantization.qat.layers.fake_quant import SIGNED_UNIT, UNIT, fake_quantize
from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule
from keras_precision.quantization.qat.layers.rule_lookup import known_rule_of, rule_of

__all__ = ["PRECISIONS", "QuantizeWrapper"]

PRECISIONS = ("int8", "int4", "float32")
"""Precisions that a layer can be trained for: 8-bit activations, and weights in 8 bits, 4 bits, or float."""

_FIXED = {"unit": UNIT, "signed_unit": SIGNED_UNIT}


@keras.saving.register_keras_serializable("keras_precision")
class QuantizeWrapper(keras.layers.Wrapper):
    """Computes a layer like its integer kernel, with gradients that pass the rounding.

    The weights have one scale per channel, and training updates the range of the output.
    ``kp.quantize_aware`` puts it around the layers of a model; use it directly for single layers.

    Args:
        layer: A layer of Keras 3 with a rule (``kp.register_quantize_rule`` adds one).
        precision: ``"int8"``, ``"int4"`` (4-bit weights, 8-bit activations) or ``"float32"`` (only
            the output is quantized, for the integer layer that reads it).
        quantize_input: Whether to quantize the input, too, as after an input of the model.
        quantize_output: Whether to quantize the output; False where the kernel also computes the next layer.
        folded: Whether the kernel of the previous layer computes this one.
        learned_ranges: Whether gradients train the ranges, in place of averages.
        momentum: The weight of the previous average in an averaged range.
        start_after: Training steps before quantization starts; ranges are updated from the first step.
        freeze_after: Training steps after which averaged ranges do not change; None for never.
        freeze_norm_after: Training steps after which a batch normalization uses its moving
            statistics, and does not update them; None for never.
        **kwargs: As for ``keras.layers.Layer``.

    Raises:
        UnknownPrecisionError: The precision is none of the three.
        InputError: A number of steps is negative, or the momentum not between 0 and 1.
        ModelError: The layer has weights and no rule, or is already wrapped.

    Example:
        >>> import keras
        >>> layer = QuantizeWrapper(keras.layers.Dense(2), "int4")
        >>> layer(np.ones((1, 4), "float32")).shape
        TensorShape([1, 2])
    """

    def __init__(
        self,
        layer: Any,
        precision: str = "int8",
        *,
        quantize_input: bool = False,
        quantize_output: bool = True,
        folded: bool = False,
        learned_ranges: bool = False,
        momentum: float = 0.99,
        start_after: int = 0,
        freeze_after: int | None = None,
        freeze_norm_after: int | None = None,
        **kwargs: Any,
    ) -> None:
        _check(layer, precision, momentum, (start_after, freeze_after, freeze_norm_after))
        super().__init__(layer, **{"dtype": layer.dtype_policy, "name": layer.name, **kwargs, "autocast": False})
        self.rule: Any = QuantizeRule() if precision == "float32" else rule_of(layer)
        self.options: dict[str, Any] = {
            "precision": precision,
            "quantize_input": quantize_input,
            "quantize_output": quantize_output,
            "folded": folded,
            "learned_ranges": learned_ranges,
            "momentum": momentum,
            "start_after": start_after,
            "freeze_after": freeze_after,
            "freeze_norm_after": freeze_norm_after,
        }
        self.precision = precision
        self.output_kind = self.rule.output_of(layer) if quantize_output else "kept"
        self.inner_names = () if folded or precision == "float32" else self.rule.inner(layer)
        names = [
            *(["input"] if quantize_input else []),
            *self.inner_names,
            *(["output"] if self.output_kind == "own" else []),
        ]
        self.ranges = [ActivationRange(learned=learned_ranges, momentum=momentum, name=name) for name in names]
        self.steps = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False, name="steps")
        self.supports_masking = True

    @property
    def sites(self) -> dict[str, Any]:
        """The ranges by the name of their activation: ``"input"``, intermediate ones, ``"output"``."""
        return {activation_range.name: activation_range for activation_range in self.ranges}

    @property
    def has_trained(self) -> bool:
        """Whether a training batch has updated the ranges."""
        return int(self.steps) > 0

    @property
    def stands_for(self) -> Any:
        """The wrapped layer, whose path is that of the wrapper."""
        return self.layer

    def build(self, *shapes: Any) -> None:
        """Do nothing: the first call builds the layer with all its inputs."""
        self.built = True

    def __call__(self, inputs: Any, *others: Any, **kwargs: Any) -> Any:
        """Store the range of the input, and which inputs are those of the model, during the construction of the model."""
        tensors = keras.tree.flatten([inputs, *others])
        if self.options["quantize_input"] and all(isinstance(tensor, keras.KerasTensor) for tensor in tensors):
            self.__dict__["_from_model"] = [_is_model_input(tensor) for tensor in tensors]
        if self.output_kind == "source" and isinstance(inputs, keras.KerasTensor):
            self.__dict__["_source"] = (self.sites.get("input") or _range_of(inputs),)  # Keras does not track the tuple
        return super().__call__(inputs, *others, **kwargs)

    def call(self, inputs: Any, *others: Any, training: Any = None, mask: Any = None, **kwargs: Any) -> Any:
        """Compute the layer with fake-quantized weights and activations.

        Args:
            inputs: The first input of the layer.
            *others: Its other inputs.
            training: Whether this batch updates the ranges.
            mask: The mask, for layers that accept one.
            **kwargs: Other arguments of the layer.

        Returns:
            The output of the layer, fake-quantized.
        """
        # Keras marks the product of a symbolic tensor and a number as sparse, which ActivationRange does not support:
        # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/ops/numpy.py. Its values are dense.
        inputs = keras.tree.map_structure(lambda tensor: ops.convert_to_tensor(tensor, sparse=False), inputs)
        arguments = {"training": training, "mask": mask}
        # The signature of ``call``, which Keras itself inspects:
        # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/layers/layer.py.
        accepted = self.layer._call_signature.parameters
        kwargs |= {name: value for name, value in arguments.items() if value is not None and name in accepted}
        if not self.layer.built:
            self.layer(inputs, *others, **kwargs)
        watching, active = self._schedule(bool(training))

        def quantize(name: str, values: Any) -> Any:
            site = self.sites.get(name)
            return values if site is None else active(values, site(values, watching=watching))

        outputs = self._computed(quantize, active, *self._quantized_inputs(quantize, [inputs, *others]), **kwargs)
        if self.output_kind == "kept":
            return outputs
        return keras.tree.map_structure(lambda tensor: self._quantized_output(quantize, active, tensor), outputs)

    def _quantized_inputs(self, quantize: Any, arguments: list[Any]) -> list[Any]:
        """Quantize the inputs of the model; what other layers compute is in their ranges already."""
        tensors = keras.tree.flatten(arguments)
        from_model = vars(self).get("_from_model", ())
        if not any(from_model) or len(from_model) != len(tensors):  # unknown: the first argument is the model's input
            return [keras.tree.map_structure(lambda tensor: quantize("input", tensor), arguments[0]), *arguments[1:]]
        pairs = zip(tensors, from_model, strict=True)
        quantized = [quantize("input", tensor) if is_input else tensor for tensor, is_input in pairs]
        return list(keras.tree.pack_sequence_as(arguments, quantized))

    def _schedule(self, training: bool) -> tuple[Any, Callable[[Any, Any], Any]]:
        """Return whether this batch updates ranges (None: no), and the function that selects exact or quantized values."""
        steps = ops.copy(self.steps)  # before this step; convert_to_tensor may return the variable itself
        if training:
            self.steps.assign_add(1)
        freeze, start = self.options["freeze_after"], self.options["start_after"]
        watching = None if not training else ops.less(steps, 2**31 - 1 if freeze is None else freeze)

        def active(exact: Any, coarse: Any) -> Any:
            coarse = ops.cast(coarse, keras.backend.standardize_dtype(exact.dtype))
            return coarse if not start else ops.where(steps >= start, coarse, ops.convert_to_tensor(exact))

        return watching, active

    def _computed(self, quantize: Any, active: Any, *inputs: Any, **kwargs: Any) -> Any:
        """Return the output of the layer with fake-quantized weights, not yet quantized itself."""
        layer, freeze = self.layer, self.options["freeze_norm_after"]
        if isinstance(layer, keras.layers.BatchNormalization) and kwargs.get("training") and freeze is not None:
            normalized = self._freeze_batch_norm(freeze, *inputs, **kwargs)
            return normalized if not self.inner_names else self.rule.with_error(layer, quantize, inputs[0], normalized)
        if self.options["folded"] or self.precision == "float32":
            return layer(*inputs, **kwargs)
        with self.rule.quantized_weights(layer, self.precision, active):
            return self.rule.call(layer, quantize, *inputs, **kwargs)

    def _freeze_batch_norm(self, freeze: int, *inputs: Any, **kwargs: Any) -> Any:
        """Compute batch normalization, once frozen by the moving statistics and without updating them."""
        layer = self.layer
        frozen = ops.greater(ops.convert_to_tensor(self.steps), freeze)
        moving = (layer.moving_mean, layer.moving_variance)
        before = [ops.copy(statistic) for statistic in moving]
        by_moving = layer(*inputs, **{**kwargs, "training": False})
        by_batch = layer(*inputs, **kwargs)
        for statistic, value in zip(moving, before, strict=True):
            statistic.assign(ops.where(frozen, value, ops.convert_to_tensor(statistic)))
        return ops.where(frozen, by_moving, by_batch)

    def _quantized_output(self, quantize: Any, active: Any, values: Any) -> Any:
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(values.dtype)):
            return values
        if self.output_kind == "own":
            return quantize("output", values)
        wide = ops.cast(values, "float32")
        if self.output_kind in _FIXED:
            return active(values, fake_quantize(wide, *_FIXED[self.output_kind]))
        (source,) = vars(self).get("_source", (None,))
        if source is None:
            return values
        low, high = (ops.stop_gradient(end) for end in source.ends())
        return active(values, ops.where(high > low, fake_quantize(wide, low, high), wide))

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return the output mask of the layer."""
        return self.layer.compute_mask(inputs, mask)

    def get_config(self) -> dict[str, Any]:
        """Return the configuration, with that of the layer."""
        return {**super().get_config(), **self.options}


def _check(layer: Any, precision: str, momentum: float, steps: tuple[int | None, ...]) -> None:
    if precision not in PRECISIONS:
        raise UnknownPrecisionError(
            f"Expected the precision of quantization-aware training to be one of {', '.join(PRECISIONS)}. Received: {precision!r}."
        )
    if not isinstance(layer, keras.layers.Layer):
        raise ModelError(
            f"Expected a layer of Keras 3. Received: {type(layer).__name__}. Models of tf_keras train with "
            "kp.quantize_aware(model, engine='tfmot')."
        )
    if isinstance(layer, QuantizeWrapper):
        raise ModelError(
            f"Expected a layer in float. Received: '{layer.name}', which is wrapped already. Wrap its layer: wrapper.layer."
        )
    if not 0 <= momentum < 1:
        raise InputError(f"Expected a momentum from 0 to below 1. Received: {momentum}.")
    if any(number is not None and number < 0 for number in steps):
        raise InputError(f"Expected numbers of training steps of at least 0. Received: {steps}.")


def _is_model_input(tensor: Any) -> bool:
    """Return whether a symbolic tensor is an input of the model, moved or not, that no layer has quantized."""
    history = tensor._keras_history
    layer = history.operation
    if isinstance(layer, keras.layers.InputLayer):
        return True
    if isinstance(layer, QuantizeWrapper):
        if layer.output_kind != "kept" or layer.sites.get("input") is not None:
            return False
        layer = layer.layer
    parents = history.operation._inbound_nodes[history.node_index].input_tensors
    if len(parents) != 1 or not isinstance(layer, keras.layers.Layer) or known_rule_of(layer) is None:
        return False
    return rule_of(layer).output_of(layer) == "kept" and _is_model_input(parents[0])


def _range_of(tensor: Any) -> Any:
    """Return the range that a symbolic tensor is quantized in; None where it is unknown."""
    # The layer of a tensor, and its inputs, have no public form:
    # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/ops/node.py.
    history = tensor._keras_history
    layer = history.operation
    if isinstance(layer, QuantizeWrapper):
        if layer.output_kind in ("own", "source"):
            return layer.sites.get("output") or vars(layer).get("_source", (None,))[0]
        if layer.sites.get("input") is not None:
            return layer.sites["input"]
        if layer.output_kind != "kept":
            return None
        layer = layer.layer
    parents = history.operation._inbound_nodes[history.node_index].input_tensors
    if len(parents) != 1 or not isinstance(layer, keras.layers.Layer) or rule_of(layer).output_of(layer) != "kept":
        return None
    return _range_of(parents[0])
