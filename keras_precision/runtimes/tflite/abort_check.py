"""Files whose kernels would end the process, found from the scales that they combine."""

import functools
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

from keras_precision.core.errors import ExportError, FileFormatError
from keras_precision.core.system.files import write_atomic
from keras_precision.core.system.optional import require
from keras_precision.runtimes.tflite.file import inspect

__all__ = ["check_runs_here", "doubtful_operators"]

# The kernels of LiteRT that compute a multiplier from scales and end the process where it is out of range. Of 47 functions,
# converted and run with scales from 1e-12 to 1e12, no other did: QuantizeMultiplierSmallerThanOneExp in
# https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/lite/kernels/internal/quantization_util.cc.
_SUMS = MappingProxyType({"ADD": (1, 20), "SUB": (1, 20), "SQUARED_DIFFERENCE": (2, 14)})
"""The power of the scale of the inputs, and the bits by which the kernel shifts their sum."""
_INT16_BITS = 15
_COMPARISONS = ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL")
_INTEGERS = ("INT8", "UINT8", "INT16")


def check_runs_here(content: bytes) -> None:
    """Raise ExportError where a file that this package quantized would end the process.

    Only a file with doubtful scales costs more than a look at them: it is run in a process of its own.
    """
    doubtful = doubtful_operators(content)
    if not doubtful:
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            inspect(write_atomic(Path(folder) / "model.tflite", content))
        except FileFormatError as error:
            raise ExportError(
                f"Expected scales that the kernels of the interpreter can combine. Received: {'; or '.join(doubtful[:3])}, which ends the process. "
                "The usual cause is a mask of large negative numbers, such as -1e9, that is added to scores: use -1e4 or "
                "smaller, or leave the layer in float32 in a plan."
            ) from error


@functools.lru_cache(maxsize=8)
def doubtful_operators(content: bytes) -> tuple[str, ...]:
    """Return the operators of a file, with their scales, for which the kernel may end the process."""
    schema: Any = require("ai_edge_litert.schema_py_generated", extra="tflite")
    kernels = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    types = {number: name for name, number in vars(schema.TensorType).items() if not name.startswith("_")}
    model = schema.Model.GetRootAs(content, 0)
    codes = [model.OperatorCodes(number) for number in range(model.OperatorCodesLength())]
    names = [kernels.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "CUSTOM") for code in codes]
    found: list[str] = []
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        scales = [_scale(graph.Tensors(index), types) for index in range(graph.TensorsLength())]
        for index in range(graph.OperatorsLength()):
            found += _doubts(graph, graph.Operators(index), names, scales)
    return tuple(found)


_Scale = tuple[float, str] | None
"""The one scale and the type of a tensor of integers; None for others."""


def _scale(tensor: Any, types: dict[int, str]) -> _Scale:
    quantization, name = tensor.Quantization(), types.get(tensor.Type(), "")
    if name not in _INTEGERS or quantization is None or quantization.ScaleLength() != 1:
        return None
    return float(quantization.Scale(0)), name


def _doubts(graph: Any, operator: Any, names: list[str], scales: list[_Scale]) -> Iterator[str]:
    """Yield a description of an operator whose multipliers are not known to be in range."""
    kernel, output = names[operator.OpcodeIndex()], int(operator.Outputs(0)) if operator.OutputsLength() else -1
    numbers = [int(operator.Inputs(index)) for index in range(operator.InputsLength())]
    read = [scales[number] for number in numbers if number >= 0]
    written = scales[output] if output >= 0 else None
    known = [scale for scale in (*read, written) if scale is not None]
    if not all(math.isfinite(value) and value > 0 for value, _ in known):
        yield f"{kernel} '{_name(graph, output)}', one of whose scales is zero or not finite"
    elif kernel in _COMPARISONS and any(value == 1 for value, _ in known):
        yield f"{kernel} '{_name(graph, output)}' of steps of exactly 1"
    elif kernel in _SUMS and written is not None and not _combine(kernel, [value for value, _ in known[:-1]], written):
        steps = " and ".join(f"{value:.3g}" for value, _ in known[:-1])
        yield f"{kernel} '{_name(graph, output)}' of steps of {steps} into steps of {written[0]:.3g}"


def _combine(kernel: str, inputs: list[float], output: tuple[float, str]) -> bool:
    """Whether the multiplier of a sum lies between 0 and 1, as its kernel checks."""
    power, bits = _SUMS[kernel]
    shift = _INT16_BITS if output[1] == "INT16" else bits
    return 0 < (2 * max(inputs)) ** power / (2.0**shift * output[0]) < 1 - 2.0**-31


def _name(graph: Any, tensor: int) -> str:
    return str(graph.Tensors(tensor).Name().decode()) if tensor >= 0 else ""
