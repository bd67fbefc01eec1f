"""EdgeModel: what a file of any runtime says of itself: inputs, outputs, operators, card."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.runtimes.tflite.operators import Operator

__all__ = ["CARD", "EdgeModel", "Tensor", "zeros"]

Array = npt.NDArray[Any]


CARD = "keras_precision.card"
"""The name of the metadata entry that says how a file was made."""


@dataclass(frozen=True)
class Tensor:
    """One input or output of a file.

    Attributes:
        name: Its name in the signature, or in the graph where there is no signature.
        shape: Its shape, with -1 where the size is free.
        dtype: NumPy's name of its element type.
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
        """Element type and quantization, such as ``int8 (scale 0.0039, zero point -128)``."""
        return f"{self.dtype} (scale {self.scale:.4g}, zero point {self.zero_point})" if self.scale else self.dtype

    def quantize(self, values: Array) -> Array:
        """Return real numbers as this tensor holds them.

        Args:
            values: Real numbers.

        Returns:
            ``clip(round(x / scale) + zero_point)`` in the tensor's type, or a cast where it is not
            quantized. The division is one of float64, and halves are rounded to even: in float32 it
            would itself be rounded, and could step over a half.
        """
        dtype = np.dtype(self.dtype)
        if not self.scale or values.dtype == dtype:
            return values.astype(dtype, copy=False)
        limits = np.iinfo(dtype)
        steps = np.rint(np.divide(values, self.scale, dtype=np.float64))
        steps += self.zero_point
        return np.clip(steps, limits.min, limits.max, out=steps).astype(dtype)

    def dequantize(self, values: Array) -> Array:
        """Return what this tensor holds as real numbers.

        Args:
            values: The tensor's content.

        Returns:
            ``scale * (q - zero_point)`` as float32, or ``values`` where it is not quantized.
        """
        if not self.scale:
            return values
        return ((values.astype(np.float32) - self.zero_point) * self.scale).astype(np.float32)


@dataclass(frozen=True)
class EdgeModel:
    """What a ``.tflite`` file holds.

    Attributes:
        path: The file.
        size_bytes: Its size.
        runtime: The interpreter that read it, with its version.
        inputs: Its inputs.
        outputs: Its outputs, in the order of the model's.
        operators: Its operators, in the order in which they run (main subgraph).
        writers: For each output, the number of the operator that computes it; -1 for an input handed on.
        card: What the file says of how it was made, as JSON; empty where it says nothing.
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
    def operator_counts(self) -> dict[str, int]:
        """``"CONV_2D int8"`` and the like, to how many there are, most frequent first."""
        names = [f"{operator.kernel} {operator.precision}" for operator in self.operators]
        return {name: names.count(name) for name in sorted(set(names), key=lambda name: (-names.count(name), name))}


def zeros(model: EdgeModel) -> list[Array]:
    """Return a sample of zeros that the file takes."""
    return [np.zeros([max(1, size) for size in tensor.shape], tensor.dtype) for tensor in model.inputs]
