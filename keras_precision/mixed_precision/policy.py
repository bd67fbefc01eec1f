"""The precision of new models: Keras's global dtype policy and TF32, set and restored."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from keras_precision.core.errors import InputError
from keras_precision.core.plan import check_precision
from keras_precision.core.system.optional import require

__all__ = ["precision", "set_precision"]


def set_precision(policy: str, tf32: bool | None = None) -> None:
    """Set the precision of the models that are built from now on.

    It sets Keras's global dtype policy: on Keras 3, and on tf_keras if that is loaded.

    Args:
        policy: ``"float32"``, ``"mixed_bfloat16"`` or ``"mixed_float16"``.
        tf32: Whether GPUs may round the factors of float32 products to TF32, whose mantissa has 10 bits in place
            of 23; None leaves it unchanged. (By default, it is off in PyTorch's products, and on everywhere else.)

    Raises:
        UnknownPrecisionError: The policy is none of these; the global policy is not changed.
        InputError: ``tf32`` is neither True, False nor None.
    """
    _check(policy, tf32)
    _set_policy(policy)
    _set_tf32(tf32)


@contextlib.contextmanager
def precision(policy: str, tf32: bool | None = None) -> Iterator[None]:
    """Build models in a precision, and restore the global policy afterwards.

    Args:
        policy: ``"float32"``, ``"mixed_bfloat16"`` or ``"mixed_float16"``.
        tf32: Whether GPUs may round the factors of float32 products to TF32; None leaves it unchanged. Unlike the
            policy, which layers store, it applies to what is computed (on JAX and TensorFlow: traced) inside the block.

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
    with contextlib.ExitStack() as restore:
        restore.callback(keras.config.set_dtype_policy, keras.config.dtype_policy())
        if legacy is not None:
            restore.callback(legacy.mixed_precision.set_global_policy, legacy.mixed_precision.global_policy())
        _set_policy(policy)
        for restore_tf32 in _set_tf32(tf32):
            restore.callback(restore_tf32)
        yield


def _check(policy: str, tf32: bool | None) -> None:
    check_precision(policy, "training", "the policy")
    if tf32 not in (None, True, False):
        raise InputError(f"Expected tf32 to be True, False, or None to leave it unchanged. Received: {tf32!r}.")


def _set_policy(policy: str) -> None:
    require("keras", extra="tensorflow").config.set_dtype_policy(policy)
    legacy = sys.modules.get("tf_keras")
    if legacy is not None:
        legacy.mixed_precision.set_global_policy(policy)


def _set_tf32(allowed: bool | None) -> list[Callable[[], None]]:
    """Set TF32 on the backend of Keras 3, and on TensorFlow if tf_keras is loaded; return functions that restore it."""
    if allowed is None:
        return []
    from keras_precision._adapters import adapters_in_use  # Imported late: without Keras, _set_policy reports it first.

    frameworks = {adapter.compute.name: adapter.compute for adapter in adapters_in_use()}
    return [compute.allow_tf32(allowed) for compute in frameworks.values()]
