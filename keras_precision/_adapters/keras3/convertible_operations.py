"""Operations of ``keras.ops`` on TensorFlow, computed by operators that TensorFlow Lite has kernels for."""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import keras

from keras_precision.core.system.optional import require

__all__ = ["convertible_operations", "operation_name"]

_LOCK = threading.RLock()  # two conversions at once would restore the functions of one another


@contextmanager
def convertible_operations() -> Iterator[None]:
    """Compute operations with other operators than Keras does, for what this thread traces inside a ``with`` block.

    Keras has the functions of its backend as attributes of a module, and calls them there:
    https://github.com/keras-team/keras/blob/v3.15.1/keras/src/ops/numpy.py (``backend.numpy.argmax``).
    """
    module, thread = keras.src.backend.numpy, threading.get_ident()

    def for_thread(original: Callable[..., Any], replacement: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def operation(*args: Any, **kwargs: Any) -> Any:
            return (replacement if threading.get_ident() == thread else original)(*args, **kwargs)

        return operation

    with _LOCK:
        originals = {name: getattr(module, name) for name in _REPLACEMENTS}
        try:
            for name, original in originals.items():
                setattr(module, name, for_thread(original, _REPLACEMENTS[name]))
            yield
        finally:
            for name, original in originals.items():
                setattr(module, name, original)


def operation_name(graph_operation: Any) -> str | None:
    """Return the function of ``keras.ops`` that added an operation to a TensorFlow graph; None if none did."""
    name = None
    for frame in reversed(graph_operation.traceback):
        path = frame.filename.replace("\\", "/")
        if "/keras/src/ops/" in path or "/keras/src/backend/tensorflow/" in path:
            name = frame.name if hasattr(keras.ops, frame.name) else name
        elif name is not None and "/keras/src/utils/" not in path:  # the caller; utils have the filters of tracebacks
            break
    return name


def _position(find: Callable[..., Any], x: Any, axis: int | None, keepdims: bool) -> Any:
    """Return where the largest or smallest value is; Keras itself orders -0.0 before 0.0 with bit operations."""
    tensorflow = require("tensorflow", extra="tensorflow")
    x = keras.ops.convert_to_tensor(x)
    values = tensorflow.reshape(x, [-1]) if axis is None else x
    position = find(values, axis=0 if axis is None else axis, output_type=tensorflow.int32)
    if not keepdims:
        return position
    return tensorflow.reshape(position, [1] * len(x.shape)) if axis is None else tensorflow.expand_dims(position, axis)


def _argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    return _position(require("tensorflow", extra="tensorflow").math.argmax, x, axis, keepdims)


def _argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    return _position(require("tensorflow", extra="tensorflow").math.argmin, x, axis, keepdims)


def _tan(x: Any) -> Any:
    return keras.ops.sin(x) / keras.ops.cos(x)


def _arctan(x: Any) -> Any:
    return keras.ops.arctan2(x, keras.ops.ones_like(x))  # ATAN2 does not broadcast


def _arcsin(x: Any) -> Any:
    return keras.ops.arctan2(x, _other_leg(x))


def _arccos(x: Any) -> Any:
    return keras.ops.arctan2(_other_leg(x), x)


def _other_leg(x: Any) -> Any:
    """Return sqrt(1 - x^2), whose factors lose no digits near -1 and 1."""
    return keras.ops.sqrt(keras.ops.multiply(keras.ops.subtract(1.0, x), keras.ops.add(1.0, x)))


_REPLACEMENTS: MappingProxyType[str, Callable[..., Any]] = MappingProxyType(
    {"argmax": _argmax, "argmin": _argmin, "tan": _tan, "arctan": _arctan, "arcsin": _arcsin, "arccos": _arccos}
)
"""Functions of ``keras.ops`` without kernels, whose values follow from operators with kernels: ARG_MAX, SIN, ATAN2."""
