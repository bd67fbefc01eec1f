"""QuantizeRule: how layers of one class compute in integers; and the registry of such rules."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from keras_precision.core.errors import InputError
from keras_precision.core.formats.deployment import DEPLOYMENT_PRECISIONS
from keras_precision.quantization.qat.layers.fake_quant import on_weight_grid

__all__ = ["Output", "Quantize", "QuantizeRule", "register_quantize_rule"]

Output = Literal["own", "unit", "signed_unit", "kept", "source"]
Quantize = Callable[[str, Any], Any]
"""Given the name of an inner activation and its values, returns them as integers stand for them."""


class QuantizeRule:
    """How layers of one class compute in integers, for quantization-aware training.

    A rule without arguments quantizes the output alone. Subclass it where a layer computes
    activations on the way that the integer kernels quantize, too.

    Args:
        weights: Attribute that holds a weight (dots lead into inner layers) to the axes of its
            channels, each of which has a scale of its own.
        output: ``"own"`` (a range of its own), ``"unit"`` or ``"signed_unit"`` (the fixed range of
            sigmoid and softmax, or of tanh), ``"kept"`` (the values of the input, moved about, need
            no rounding) or ``"source"`` (new values in the range of the input, as averages are).
        narrow: Whether the kernel has a form with 4-bit weights; else they have 8 in an int4 plan.

    Attributes:
        folds: Whether the kernel of the layer before may take the weights in, as it does a normalization's.

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
            One of the five.
        """
        return self.output

    def inner(self, layer: Any) -> tuple[str, ...]:
        """Return the activations inside a layer that get a range of their own.

        Args:
            layer: The layer.

        Returns:
            Their names, in the order in which the kernels compute them.
        """
        return ()

    def call(self, layer: Any, quantize: Quantize, *inputs: Any, **kwargs: Any) -> Any:
        """Compute the layer, whose weights are on their grid already.

        Args:
            layer: The layer.
            quantize: Puts an inner activation on its grid.
            *inputs: What the layer is called with.
            **kwargs: Likewise.

        Returns:
            The output, before it is quantized.
        """
        return layer(*inputs, **kwargs)

    @contextlib.contextmanager
    def quantized_weights(self, layer: Any, precision: str, active: Any) -> Iterator[None]:
        """Put the weights of a layer on their grid for a while.

        Args:
            layer: A built layer.
            precision: ``"int8"`` or ``"int4"``.
            active: Gives, for weights and their rounded form, those to compute with.
        """
        levels = DEPLOYMENT_PRECISIONS[precision if self.narrow else "int8"].largest_weight
        with contextlib.ExitStack() as kept:
            for path, channels in self.weights.items():
                holder, name = _holder(layer, path)
                weights = vars(holder).get(name)
                if weights is not None:
                    kept.enter_context(
                        swapped(holder, name, active(weights, on_weight_grid(weights, channels, levels)))
                    )
            yield


@contextlib.contextmanager
def swapped(holder: Any, name: str, value: Any) -> Iterator[None]:
    """Give an attribute another value for a while, past Keras's tracking of attributes.

    Args:
        holder: The object.
        name: The attribute.
        value: What it holds meanwhile.
    """
    before = vars(holder)[name]
    vars(holder)[name] = value
    try:
        yield
    finally:
        vars(holder)[name] = before


def _holder(layer: Any, path: str) -> tuple[Any, str]:
    *inner, name = path.split(".")
    for each in inner:
        layer = getattr(layer, each)
    return layer, name


_RULES: dict[type, QuantizeRule] = {}


def register_quantize_rule(layer_class: type, rule: QuantizeRule) -> None:
    """Say how layers of a class compute in integers.

    Args:
        layer_class: A class of Keras 3 layers; it holds for its subclasses, too, that have no rule.
        rule: The rule; it replaces one that the class has.

    Raises:
        InputError: The first is no class, or the second no rule.

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
