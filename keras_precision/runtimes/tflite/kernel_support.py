"""The operators of a ``.tflite`` file that a runtime does not support, or computes wrongly without an error."""

from collections.abc import Callable, Iterator
from types import MappingProxyType

from keras_precision.core.errors import InputError, nearest
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.runtimes.tflite.file import Operator

__all__ = ["RUNTIMES", "check_runtime", "is_without_kernel", "unsupported_operators"]

_NO_KERNEL = "has no kernel "

# The kernels that tflite-micro 0.dev20261023 registers, among those that Keras layers are converted to.
_MICRO = """
ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_ARGS
BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE
DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD
FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU
LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM
MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU
RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX
SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM
SVDF TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
"""
_MICRO_KERNELS = frozenset(_MICRO.split())


def _litert(_: Operator) -> str | None:
    return None


def _tflite_runtime(operator: Operator) -> str | None:
    """What tflite-runtime 2.14, the last release, lacks for an operator that LiteRT 2.3 runs; None if it supports it."""
    read, _, written = operator.types.partition("->")
    if operator.kernel == "FULLY_CONNECTED" and operator.precision == "int8_dynamic":
        return "computes dense layers in int8_dynamic wrongly, without an error"
    if operator.kernel == "TRANSPOSE_CONV" and operator.precision == "int8_dynamic":
        return "has no transposed convolutions in int8_dynamic"
    if operator.kernel == "FULLY_CONNECTED" and operator.precision == "int4":
        return "has no dense layers with int4 weights"
    if operator.kernel == "QUANTIZE" and (read, written) == ("int8", "int16"):
        return "cannot convert int8 to int16 activations within a file"
    if operator.kernel in ("RSQRT", "GELU") and operator.precision == "int16x8":
        return f"has no {operator.kernel} for int16 activations"
    return None


def _tflm(operator: Operator) -> str | None:
    """What tflite-micro 0.dev20261023 lacks for an operator; None if it supports it."""
    if operator.kernel not in _MICRO_KERNELS:
        return f"{_NO_KERNEL}{operator.kernel}"
    if operator.precision == "int8_dynamic":
        return "has no kernels of floats with int8 weights"
    if operator.kernel == "DEQUANTIZE" and operator.types.startswith("float16"):
        return "cannot widen float16 weights"
    if operator.kernel == "FULLY_CONNECTED" and operator.precision == "int4":
        return "has no dense layers with int4 weights"
    return None


RUNTIMES: MappingProxyType[str, Callable[[Operator], str | None]] = MappingProxyType(
    {"litert": _litert, "tflite-runtime": _tflite_runtime, "tflm": _tflm}
)
"""A runtime to a function that says what it lacks for an operator; every file is run on LiteRT before it is written."""


def check_runtime(runtime: object) -> None:
    """Raise ``InputError`` unless a runtime is one of ``RUNTIMES``."""
    if runtime not in RUNTIMES:
        raise InputError(
            f"Expected runtime to be one of {', '.join(RUNTIMES)}. Received: {runtime!r}. {nearest(str(runtime), RUNTIMES)}".rstrip()
        )


def is_without_kernel(lack: str) -> bool:
    """Return whether what a runtime lacks for an operator is its kernel, in every precision."""
    return lack.startswith(_NO_KERNEL)


def unsupported_operators(model: EdgeModel, runtime: str) -> Iterator[tuple[int, str]]:
    """Yield the indices of operators that a runtime does not compute, or computes wrongly, and what it lacks.

    Example:
        >>> import keras_precision as kp
        >>> written = kp.export_tflite(model, "model.tflite", "int8_dynamic", x_cal)
        >>> [text for _, text in unsupported_operators(kp.edge.inspect("model.tflite"), "tflite-runtime")][0]
        'computes dense layers in int8_dynamic wrongly, without an error'
    """
    for number, operator in enumerate(model.operators):
        text = RUNTIMES[runtime](operator)
        if text is not None:
            yield number, text
