"""EdgeModel: inputs, outputs, operators and card of a file of any runtime."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.model_inputs import Input
from keras_precision.runtimes.tflite.operators import Operator

__all__ = ["CARD", "EdgeModel", "Tensor", "runnable_sample"]

Array = npt.NDArray[Any]


CARD = "keras_precision.card"
"""The name of the metadata entry that has the result of the export."""


@dataclass(frozen=True)
class Tensor:
    """One input or output of a file.

    Attributes:
        name: Its name in the signature, or in the graph if there is no signature.
        shape: Its shape, with -1 for a dynamic size.
        dtype: NumPy's name of its dtype.
        scale: Step of the quantization, ``x = scale * (q - zero_point)``; 0 if it is not quantized.
        zero_point: The integer that stands for 0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float = 0.0
    zero_point: int = 0

    @property
    def described(self) -> str:
        """Dtype and quantization, such as ``int8 (scale 0.0039, zero point -128)``."""
        return f"{self.dtype} (scale {self.scale:.4g}, zero point {self.zero_point})" if self.scale else self.dtype

    def quantize(self, values: Array) -> Array:
        """Return real numbers quantized for this tensor.

        Args:
            values: Real numbers.

        Returns:
            ``clip(round(x / scale) + zero_point)`` in the tensor's dtype, or a cast if it is not
            quantized. The division is in float64, with halves rounded to even: in float32, its own
            rounding error could move a value across a half.
        """
        dtype = np.dtype(self.dtype)
        if not self.scale or values.dtype == dtype:
            return values.astype(dtype, copy=False)
        limits = np.iinfo(dtype)
        steps = np.rint(np.divide(values, self.scale, dtype=np.float64))
        steps += self.zero_point
        return np.clip(steps, limits.min, limits.max, out=steps).astype(dtype)

    def dequantize(self, values: Array) -> Array:
        """Return values of this tensor as real numbers.

        Args:
            values: The tensor's content.

        Returns:
            ``scale * (q - zero_point)`` as float32, or ``values`` if it is not quantized.
        """
        if not self.scale:
            return values
        return ((values.astype(np.float32) - self.zero_point) * self.scale).astype(np.float32)


@dataclass(frozen=True)
class EdgeModel:
    """Inputs, outputs and operators of a file, such as a ``.tflite`` file.

    Attributes:
        path: The file.
        size_bytes: Its size.
        runtime: The interpreter that read it, with its version.
        inputs: Its inputs.
        outputs: Its outputs, in the order of the model's.
        operators: Its operators, in the order in which they run (main subgraph).
        writers: Indices of the operators that compute the outputs; -1 for an input that is passed through.
        card: The result of the export, as JSON; empty if the file has none.
    """

    path: str
    size_bytes: int
    runtime: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    writers: tuple[int, ...] = ()
    card: str = ""

    @property
    def batch_size(self) -> int:
        """Samples a call: the size of the first axis of all inputs, or 1 where these differ, or a size is free."""
        sizes = {max(1, tensor.shape[0]) if tensor.shape else 0 for tensor in self.inputs}
        return sizes.pop() if len(sizes) == 1 and 0 not in sizes else 1

    def has_batch_axis(self, tensor: Tensor) -> bool:
        """Return whether the first axis of an input is that of the batch; a sample of another input is the whole of it."""
        return bool(tensor.shape) and max(1, tensor.shape[0]) == self.batch_size

    @property
    def model_inputs(self) -> tuple[Input, ...]:
        """The inputs as those of the exported model: real numbers, or integers where the file takes them unscaled."""
        return tuple(
            Input(
                tensor.name,
                tuple(None if size < 0 else size for size in tensor.shape[self.has_batch_axis(tensor) :]),
                "float32" if tensor.scale else tensor.dtype,
                ordered=bool(self.card) or len(self.inputs) == 1,
            )
            for tensor in self.inputs
        )

    @property
    def operator_counts(self) -> dict[str, int]:
        """Kernel and number format, such as ``"CONV_2D int8"``, to their count, most frequent first."""
        names = [f"{operator.kernel} {operator.precision}" for operator in self.operators]
        return {name: names.count(name) for name in sorted(set(names), key=lambda name: (-names.count(name), name))}


def runnable_sample(
    model: EdgeModel, run: Callable[[list[Array]], object], errors: type[Exception] = RuntimeError
) -> list[Array]:
    """Return a sample that a file takes, one array per input with dynamic sizes as 1; raise what the last trial raised.

    Zeros are tried first, but need not be valid: a mean over the tokens of a text divides by their number.
    """
    for fill in (np.zeros, np.ones):
        sample = [fill(_sizes(tensor), tensor.dtype) for tensor in model.inputs]
        with contextlib.suppress(errors):
            run(sample)
            return sample
    sample = [
        (np.arange(math.prod(_sizes(tensor))) % 2).reshape(_sizes(tensor)).astype(tensor.dtype)
        for tensor in model.inputs
    ]
    run(sample)
    return sample


def _sizes(tensor: Tensor) -> tuple[int, ...]:
    return tuple(max(1, size) for size in tensor.shape)
