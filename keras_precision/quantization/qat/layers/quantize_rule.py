"""QuantizeRule: how layers of one class compute in integers, and the registry of rules."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from keras_precision.core.errors import InputError
from keras_precision.core.formats.deployment import DEPLOYMENT_PRECISIONS
from keras_precision.quantization.qat.layers.fake_quant import fake_quantize_weights

__all__ = ["Output", "Quantize", "QuantizeRule", "register_quantize_rule"]

Output = Literal["own", "unit", "signed_unit", "kept", "source"]
Quantize = Callable[[str, Any], Any]
"""Function of the name of an inner activation and its values that returns the values fake-quantized."""


class QuantizeRule:
    """How layers of one class compute in integers, for quantization-aware training.

    A rule without arguments quantizes only the output. Subclass it where a layer computes
    intermediate activations that the integer kernels quantize, too.

    Args:
        weights: Attribute of a weight (dots lead into inner layers) to the axes of its
            channels, which have one scale per index.
        output: ``"own"`` (a range of its own), ``"unit"`` or ``"signed_unit"`` (the fixed range of
            sigmoid and softmax, or of tanh), ``"kept"`` (values of the input, possibly moved, which
            need no rounding) or ``"source"`` (new values in the range of the input, such as averages).
        narrow: Whether the kernel supports 4-bit weights; else they have 8 bits in an int4 plan.

    Attributes:
        folds: Whether the weights may fold into the kernel of the previous layer, as those of a normalization.

    Example:
        >>> import keras
        >>> rule = QuantizeRule(weights={"_kernel": (1,)})
        >>> rule.output_of(keras.layers.Dense(2))
        'own'
    """

    folds = False

    def __init__(
        self, weights: Mapping[str, tuple[int, ...]] | None = None, output: Output = "own", *, narrow: bool = True
    ) -> None:
        self.weights = dict(weights or {})
        self.output = output
        self.narrow = narrow

    def output_of(self, layer: Any) -> Output:
        """Return how the output of a layer is quantized.

        Args:
            layer: The layer.

        Returns:
            One of the five values of ``output``.
        """
        return self.output

    def inner(self, layer: Any) -> tuple[str, ...]:
        """Return the intermediate activations of a layer that have a range of their own.

        Args:
            layer: The layer.

        Returns:
            Their names, in the order in which the kernels compute them.
        """
        return ()

    def call(self, layer: Any, quantize: Quantize, *inputs: Any, **kwargs: Any) -> Any:
        """Compute the layer, whose weights are already fake-quantized.

        Args:
            layer: The layer.
            quantize: Function of the name and the values of an intermediate activation that
                returns the values fake-quantized.
            *inputs: Inputs of the layer.
            **kwargs: Keyword arguments of the layer.

        Returns:
            The output, not yet quantized.
        """
        return layer(*inputs, **kwargs)

    @contextlib.contextmanager
    def quantized_weights(self, layer: Any, precision: str, active: Any) -> Iterator[None]:
        """Replace the weights of a layer by fake-quantized ones within the block.

        Args:
            layer: A built layer.
            precision: ``"int8"`` or ``"int4"``.
            active: Function of weights and their fake-quantized form that returns the ones to compute with.
        """
        levels = DEPLOYMENT_PRECISIONS[precision if self.narrow else "int8"].largest_weight
        with contextlib.ExitStack() as stack:
            for path, channels in self.weights.items():
                holder, name = _holder(layer, path)
                weights = vars(holder).get(name)
                if weights is not None:
                    quantized = active(weights, fake_quantize_weights(weights, channels, levels))
                    stack.enter_context(temporarily_set(holder, name, quantized))
            yield


@contextlib.contextmanager
def temporarily_set(holder: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute to another value within the block."""
    # In the instance's dictionary, because Layer.__setattr__ would track a tensor or refuse it on a built layer:
    # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/layers/layer.py.
    before = vars(holder)[name]
    vars(holder)[name] = value
    try:
        yield
    finally:
        vars(holder)[name] = before


def _holder(layer: Any, path: str) -> tuple[Any, str]:
    *inner, name = path.split(".")
    for attribute in inner:
        layer = getattr(layer, attribute)
    return layer, name


_RULES: dict[type, QuantizeRule] = {}


def register_quantize_rule(layer_class: type, rule: QuantizeRule) -> None:
    """Register how layers of a class compute in integers.

    Args:
        layer_class: A class of Keras 3 layers; the rule also serves its subclasses without a rule.
        rule: The rule; it replaces an earlier one of the class.

    Raises:
        InputError: The first is not a class, or the second not a rule.

    Example:
        >>> import keras
        >>> class Scale(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.factor = self.add_weight(shape=(shape[-1],), name="factor")
        ...
        ...     def call(self, inputs):
        ...         return inputs * self.factor
        >>> register_quantize_rule(Scale, QuantizeRule())
    """
    if not isinstance(layer_class, type) or not isinstance(rule, QuantizeRule):
        raise InputError(f"Expected a class of layers and a kp.QuantizeRule. Received: {layer_class!r} and {rule!r}.")
    _RULES[layer_class] = rule
