"""PrecisionWrapper: a layer that computes in a precision of its own, under any global policy."""

from typing import Any

from keras_precision._adapters import adapter_of
from keras_precision.core.plan import check_precision

__all__ = ["PrecisionWrapper"]


class PrecisionWrapper:
    """Computes a layer in a precision of its own, under any global policy.

    Inputs are cast to that precision, and outputs back to the dtype of the inputs, so that the layers around it see no
    difference. Masks and ``training`` are passed on. It saves and loads, and ``kp.plan_of`` and ``kp.apply_plan`` see it
    as one layer. The result is a ``keras.layers.Wrapper`` of Keras 3 or of tf_keras, like the layer.

    Args:
        layer: A layer of Keras 3 or tf_keras, also a composite one or a model; its policy is set, and that of
            the layers inside it.
        precision: ``"float32"``, ``"mixed_bfloat16"`` or ``"mixed_float16"``.
        **kwargs: As for ``keras.layers.Layer``, such as ``name``.

    Raises:
        UnknownPrecisionError: The precision is none of these.
        ModelError: The object is not a layer of Keras.

    Example:
        >>> import keras
        >>> from keras_precision.mixed_precision.policy import precision
        >>> with precision("mixed_float16"):
        ...     layer = PrecisionWrapper(keras.layers.Softmax(), "float32")
        >>> layer.compute_dtype
        'float32'
    """

    def __new__(cls, layer: Any, precision: str = "float32", **kwargs: Any) -> Any:
        """Return the wrapper for Keras 3 or for tf_keras, like the layer."""
        check_precision(precision, "training", "the precision of a wrapper")
        if adapter_of(layer).keras.__name__ == "tf_keras":
            from keras_precision._adapters.tf_keras.wrapper import PrecisionWrapper as Legacy

            return Legacy(layer, precision, **kwargs)
        from keras_precision._adapters.keras3.wrapper import PrecisionWrapper as Current

        return Current(layer, precision, **kwargs)
