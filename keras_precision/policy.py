"""The precision of the models that are built next: Keras's global dtype policy, set and put back."""

import contextlib
import sys
from collections.abc import Iterator

from keras_precision.optional import require
from keras_precision.plan import check_precision

__all__ = ["precision", "set_precision"]


def set_precision(policy: str) -> None:
    """Set the precision of the models that are built from now on.

    It is Keras's global dtype policy: on Keras 3, and on tf_keras if that is loaded.

    Args:
        policy: ``"float32"``, ``"mixed_bfloat16"`` or ``"mixed_float16"``.

    Raises:
        UnknownPrecisionError: It is none of these; the policy is left as it was.
    """
    check_precision(policy, "training", "the policy")
    require("keras", extra="tensorflow").config.set_dtype_policy(policy)
    legacy = sys.modules.get("tf_keras")
    if legacy is not None:
        legacy.mixed_precision.set_global_policy(policy)


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Build models in a precision, and leave the global policy as it was.

    Args:
        policy: ``"float32"``, ``"mixed_bfloat16"`` or ``"mixed_float16"``.

    Yields:
        Nothing.

    Raises:
        UnknownPrecisionError: It is none of these.

    Example:
        >>> import keras
        >>> with precision("mixed_bfloat16"):
        ...     layer = keras.layers.Dense(4)
        >>> layer.compute_dtype, keras.config.dtype_policy().name
        ('bfloat16', 'float32')
    """
    check_precision(policy, "training", "the policy")
    keras = require("keras", extra="tensorflow")
    legacy = sys.modules.get("tf_keras")
    before = keras.config.dtype_policy()
    legacy_before = None if legacy is None else legacy.mixed_precision.global_policy()
    set_precision(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
        if legacy is not None:
            legacy.mixed_precision.set_global_policy(legacy_before)
