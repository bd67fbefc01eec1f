"""The precision of the models that are built next: Keras's global dtype policy and TF32, set and put back."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from keras_precision.core.errors import InputError
from keras_precision.core.plan import check_precision
from keras_precision.core.system.optional import require

__all__ = ["precision", "set_precision"]


def set_precision(policy: str, tf32: bool | None = None) -> None:
    """Set the precision of the models that are built from now on.

    It is Keras's global dtype policy: on Keras 3, and on tf_keras if that is loaded.

    Args:
        policy: ``"float32"``, ``"mixed_bfloat16"`` or ``"mixed_float16"``.
        tf32: Whether GPUs may round the factors of float32 products to TF32, whose mantissa has 10 bits in place
            of 23; None leaves it as it is. (It is off in PyTorch's products, and on everywhere else, by default.)

    Raises:
        UnknownPrecisionError: The policy is none of these; it is left as it was.
        InputError: ``tf32`` is neither True, False nor None.
    """
    _check(policy, tf32)
    _set_policy(policy)
    _set_tf32(tf32)


@contextlib.contextmanager
def precision(policy: str, tf32: bool | None = None) -> Iterator[None]:
    """Build models in a precision, and leave the global policy as it was.

    Args:
        policy: ``"float32"``, ``"mixed_bfloat16"`` or ``"mixed_float16"``.
        tf32: Whether GPUs may round the factors of float32 products to TF32; None leaves it as it is. Unlike the
            policy, which layers keep, it holds for what is computed (on JAX and TensorFlow: traced) inside.

    Yields:
        Nothing.

    Raises:
        UnknownPrecisionError: The policy is none of these.
        InputError: ``tf32`` is neither True, False nor None.

    Example:
        >>> import keras
        >>> with precision("mixed_bfloat16", tf32=False):
        ...     layer = keras.layers.Dense(4)
        >>> layer.compute_dtype, keras.config.dtype_policy().name
        ('bfloat16', 'float32')
    """
    _check(policy, tf32)
    keras = require("keras", extra="tensorflow")
    legacy = sys.modules.get("tf_keras")
    with contextlib.ExitStack() as before:
        before.callback(keras.config.set_dtype_policy, keras.config.dtype_policy())
        if legacy is not None:
            before.callback(legacy.mixed_precision.set_global_policy, legacy.mixed_precision.global_policy())
        _set_policy(policy)
        for put_back in _set_tf32(tf32):
            before.callback(put_back)
        yield


def _check(policy: str, tf32: bool | None) -> None:
    check_precision(policy, "training", "the policy")
    if tf32 not in (None, True, False):
        raise InputError(f"Expected tf32 to be True, False, or None to leave it as it is. Received: {tf32!r}.")


def _set_policy(policy: str) -> None:
    require("keras", extra="tensorflow").config.set_dtype_policy(policy)
    legacy = sys.modules.get("tf_keras")
    if legacy is not None:
        legacy.mixed_precision.set_global_policy(policy)


def _set_tf32(allowed: bool | None) -> list[Callable[[], None]]:
    """Set it on the backend of Keras 3, and on TensorFlow where tf_keras is loaded; return what puts it back."""
    if allowed is None:
        return []
    from keras_precision._adapters import adapters_in_use  # where there is no Keras, that is said first

    frameworks = {adapter.compute.name: adapter.compute for adapter in adapters_in_use()}
    return [compute.allow_tf32(allowed) for compute in frameworks.values()]
