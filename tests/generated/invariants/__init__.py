"""What must hold for every model, by name: each a function that raises ``Violation`` where it does not."""

from collections.abc import Callable
from types import MappingProxyType

from generated.invariants.calls import check_refusals
from generated.invariants.copies import check_float32_plan, check_quantize_aware
from generated.invariants.evaluation import check_figures, check_forms
from generated.invariants.float_files import (
    check_float_onnx,
    check_float_openvino,
    check_float_tflite,
    check_input_order,
)
from generated.invariants.quantized_files import (
    check_auto_calibration,
    check_bias_correction,
    check_equalization,
    check_int8,
    check_int16x8,
)
from generated.invariants.search import check_judged
from generated.trial import Trial

__all__ = ["INVARIANTS", "checks_on"]

INVARIANTS: MappingProxyType[str, Callable[[Trial], None]] = MappingProxyType(
    {
        "float32 .tflite equals the model": check_float_tflite,
        "inputs are in the order of the model": check_input_order,
        "float32 .onnx equals the model": check_float_onnx,
        "float32 OpenVINO equals the model": check_float_openvino,
        "every form of data gives the same figures": check_forms,
        "figures are those of NumPy": check_figures,
        "a float32 plan changes no bit": check_float32_plan,
        "int16x8 is no worse than int8": check_int16x8,
        "bias correction makes nothing worse": check_bias_correction,
        "automatic calibration makes nothing worse": check_auto_calibration,
        "equalization makes nothing worse": check_equalization,
        "what is judged is what is exported": check_judged,
        "a quantization-aware model equals its file": check_quantize_aware,
        "every refusal names a layer or an argument": check_refusals,
        "int8 is no worse than TFLiteConverter": check_int8,
    }
)
"""Name to check, in the order in which they run: refusals once all have been asked for, and last what runs TFLiteConverter by hand."""

EVERYWHERE = (
    "float32 .tflite equals the model",
    "inputs are in the order of the model",
    "every form of data gives the same figures",
    "figures are those of NumPy",
    "a float32 plan changes no bit",
    "every refusal names a layer or an argument",
)
"""The checks of JAX and PyTorch, where each file is exported in a process of its own."""


def checks_on(stack: str) -> tuple[str, ...]:
    """Return the names of the checks of a stack."""
    return tuple(INVARIANTS) if stack in ("tensorflow", "tf_keras") else EVERYWHERE
