"""QuantizeWrapper: a layer of Keras 3 that computes as its integer kernel will, and still trains."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_precision.core.errors import InputError, ModelError, UnknownPrecisionError
from keras_precision.quantization.qat.layers.activation_range import ActivationRange
from keras_precision.quantization.qat.layers.fake_quant import SIGNED_UNIT, UNIT, on_grid
from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule
from keras_precision.quantization.qat.layers.rule_lookup import rule_of

__all__ = ["PRECISIONS", "QuantizeWrapper"]

PRECISIONS = ("int8", "int4", "float32")
"""What a layer may be trained for: 8-bit activations, and weights in 8 bits, 4 bits, or float."""

_FIXED = {"unit": UNIT, "signed_unit": SIGNED_UNIT}


@keras.saving.register_keras_serializable("keras_precision")
class QuantizeWrapper(keras.layers.Wrapper):
    """Computes a layer as its integer kernel will, with gradients that pass the rounding.

    The weights get a scale for each channel, the output a range that follows training. It is what
    ``kp.quantize_aware`` puts around the layers of a model, for a single layer, by hand.

    Args:
        layer: A layer of Keras 3 with a rule (``kp.register_quantize_rule`` adds one).
        precision: ``"int8"``, ``"int4"`` (4-bit weights, 8-bit activations) or ``"float32"`` (the
            output alone is quantized, for the integer layer behind it).
        quantize_input: Whether what comes in is quantized, too, as behind a model's input.
        quantize_output: Whether what goes out is; False where the kernel goes on to compute the next layer.
        folded: Whether the kernel of the layer before computes this one.
        learned_ranges: Whether ranges are trained by gradients, and not averaged.
        momentum: What one batch leaves of an averaged range.
        start_after: Training steps before anything is quantized; ranges are followed from the first.
        freeze_after: Training steps after which averaged ranges stay as they are; None for never.
        freeze_norm_after: Training steps after which a batch normalization stays as it is.
        **kwargs: As for ``keras.layers.Layer``.

    Raises:
        UnknownPrecisionError: The precision is none of the three.
        InputError: A number of steps is negative, or the momentum not between 0 and 1.
        ModelError: The layer has weights and no rule, or is wrapped already.

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
        self.ranges = [ActivationRange(learned=learned_ranges, momentum=momentum, name=each) for each in names]
        self.steps = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False, name="steps")
        self.supports_masking = True

    @property
    def sites(self) -> dict[str, Any]:
        """The ranges by the name of their activation: ``"input"``, those inside, ``"output"``."""
        return {each.name: each for each in self.ranges}

    @property
    def stands_for(self) -> Any:
        """The layer, after which paths of layers are named."""
        return self.layer

    def build(self, *shapes: Any) -> None:
        """Leave building to the layer, which is called with all its inputs."""
        self.built = True

    def __call__(self, inputs: Any, *others: Any, **kwargs: Any) -> Any:
        """Note whose range the input has, where the model is put together."""
        if self.output_kind == "source" and isinstance(inputs, keras.KerasTensor):
            self.__dict__["_source"] = (self.sites.get("input") or _range_of(inputs),)  # a tuple is not tracked
        return super().__call__(inputs, *others, **kwargs)

    def call(self, inputs: Any, *others: Any, training: Any = None, mask: Any = None, **kwargs: Any) -> Any:
        """Compute the layer on integer grids.

        Args:
            inputs: What the layer is called with.
            *others: Likewise.
            training: Whether ranges follow the values.
            mask: Passed on, where the layer takes it.
            **kwargs: Passed on.

        Returns:
            What the layer returns, on its grid.
        """
        # Keras calls the product of a symbolic tensor and a number sparse, which no grid takes; the values never are.
        inputs = keras.tree.map_structure(lambda tensor: ops.convert_to_tensor(tensor, sparse=False), inputs)
        given = {"training": training, "mask": mask}
        taken = self.layer._call_signature.parameters
        kwargs |= {name: value for name, value in given.items() if value is not None and name in taken}
        if not self.layer.built:
            self.layer(inputs, *others, **kwargs)
        watching, active = self._schedule(bool(training))

        def quantize(name: str, values: Any) -> Any:
            site = self.sites.get(name)
            return values if site is None else active(values, site(values, watching=watching))

        inputs = keras.tree.map_structure(lambda tensor: quantize("input", tensor), inputs)
        outputs = self._computed(quantize, active, inputs, *others, **kwargs)
        if self.output_kind == "kept":
            return outputs
        return keras.tree.map_structure(lambda tensor: self._finished(quantize, active, tensor), outputs)

    def _schedule(self, training: bool) -> tuple[Any, Callable[[Any, Any], Any]]:
        """Whether ranges follow this batch (None: no), and what chooses between float and rounded values."""
        steps = ops.copy(self.steps)  # before this step; convert_to_tensor may hand on the variable itself
        if training:
            self.steps.assign_add(1)
        freeze, start = self.options["freeze_after"], self.options["start_after"]
        watching = None if not training else ops.less(steps, 2**31 - 1 if freeze is None else freeze)

        def active(exact: Any, coarse: Any) -> Any:
            coarse = ops.cast(coarse, keras.backend.standardize_dtype(exact.dtype))
            return coarse if not start else ops.where(steps >= start, coarse, ops.convert_to_tensor(exact))

        return watching, active

    def _computed(self, quantize: Any, active: Any, *inputs: Any, **kwargs: Any) -> Any:
        """The layer's answer, weights on their grid, outputs not yet."""
        layer, freeze = self.layer, self.options["freeze_norm_after"]
        if isinstance(layer, keras.layers.BatchNormalization) and kwargs.get("training") and freeze is not None:
            settled = self._settling(freeze, *inputs, **kwargs)
            return settled if not self.inner_names else self.rule.with_error(layer, quantize, inputs[0], settled)
        if self.options["folded"] or self.precision == "float32":
            return layer(*inputs, **kwargs)
        with self.rule.quantized_weights(layer, self.precision, active):
            return self.rule.call(layer, quantize, *inputs, **kwargs)

    def _settling(self, freeze: int, *inputs: Any, **kwargs: Any) -> Any:
        """Batch normalization, by the moving statistics and without changing them once it is frozen."""
        layer = self.layer
        frozen = ops.greater(ops.convert_to_tensor(self.steps), freeze)
        moving = (layer.moving_mean, layer.moving_variance)
        before = [ops.copy(each) for each in moving]
        still = layer(*inputs, **{**kwargs, "training": False})
        live = layer(*inputs, **kwargs)
        for each, value in zip(moving, before, strict=True):
            each.assign(ops.where(frozen, value, ops.convert_to_tensor(each)))
        return ops.where(frozen, still, live)

    def _finished(self, quantize: Any, active: Any, values: Any) -> Any:
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(values.dtype)):
            return values
        if self.output_kind == "own":
            return quantize("output", values)
        wide = ops.cast(values, "float32")
        if self.output_kind in _FIXED:
            return active(values, on_grid(wide, *_FIXED[self.output_kind]))
        (source,) = vars(self).get("_source", (None,))
        if source is None:
            return values
        low, high = (ops.stop_gradient(end) for end in source.ends())
        return active(values, ops.where(high > low, on_grid(wide, low, high), wide))

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return the mask that the layer hands on."""
        return self.layer.compute_mask(inputs, mask)

    def get_config(self) -> dict[str, Any]:
        """Return what makes an equal wrapper."""
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
        raise ModelError(f"Expected a layer in float. Received: '{layer.name}', which is wrapped already.")
    if not 0 <= momentum < 1:
        raise InputError(f"Expected a momentum from 0 to below 1. Received: {momentum}.")
    if any(each is not None and each < 0 for each in steps):
        raise InputError(f"Expected numbers of training steps of at least 0. Received: {steps}.")


def _range_of(tensor: Any) -> Any:
    """The range that a symbolic tensor is quantized in; None where it is not known here."""
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
