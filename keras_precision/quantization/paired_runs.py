"""A float file and a quantized one, run on the same samples with every tensor kept."""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.runtimes.model_info import Tensor
from keras_precision.runtimes.tflite.file import input_details, interpreter, tensor_of

__all__ = ["Errors", "paired_errors"]

Array = npt.NDArray[Any]


@dataclass
class Errors:
    """Sums over all values of one tensor: r of the float run, q of the quantized one, as real numbers.

    Attributes:
        tensor: How the quantized file holds it.
        signal: Of r^2.
        answer: Of q^2.
        product: Of r q.
        noise: Of (r - q)^2.
    """

    tensor: Tensor
    signal: float = 0.0
    answer: float = 0.0
    product: float = 0.0
    noise: float = 0.0

    def update(self, wanted: Array, got: Array) -> None:
        """Add the values of one sample.

        Args:
            wanted: Those of the float run.
            got: Those of the quantized one, of the same size.
        """
        r, q = wanted.astype(np.float64).ravel(), got.astype(np.float64).ravel()
        self.signal += float(r @ r)
        self.answer += float(q @ q)
        self.product += float(r @ q)
        self.noise += float(np.square(r - q).sum())

    @property
    def snr_db(self) -> float:
        """``10 log10(sum r^2 / sum (r - q)^2)``."""
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def cosine(self) -> float:
        """``sum r q / sqrt(sum r^2 sum q^2)``; 1 where both are all zeros."""
        if self.signal == self.answer == 0:
            return 1.0
        return self.product / math.sqrt(self.signal * self.answer) if self.signal and self.answer else 0.0


def paired_errors(plain: bytes, quantized: bytes, samples: Mapping[str, Array]) -> dict[str, Errors]:
    """Run both files on the same samples, one after the other, and compare what their tensors hold.

    Args:
        plain: A float file for one sample.
        quantized: The file that was made from it.
        samples: Input name to an array of shape (n, ...).

    Returns:
        Name of a tensor that is computed in both, as float or quantized, to its errors.
    """
    first, second = _opened(plain), _opened(quantized)
    wanted = {str(each["name"]): each for each in _computed(first)}
    others = {str(each["name"]): each for each in _computed(second)}
    pairs = [
        (name, wanted[name], others[name])
        for name in wanted
        if name in others and _comparable(wanted[name], others[name])
    ]
    errors = {name: Errors(tensor_of(name, other)) for name, _, other in pairs}
    for number in range(len(next(iter(samples.values())))):
        for opened in (first, second):
            for name, detail in input_details(opened):
                values = samples[name][number : number + 1]
                opened.set_tensor(detail["index"], tensor_of(name, detail).quantize(values))
            opened.reset_all_variables()
            opened.invoke()
        for name, one, other in pairs:
            got = errors[name].tensor.dequantize(second.get_tensor(other["index"]))
            errors[name].update(first.get_tensor(one["index"]), got)
    return errors


def _opened(content: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        return interpreter(path, delegates=False, keep=True)


def _computed(opened: Any) -> list[Any]:
    """The details of the tensors that are given, or that an operator of the main graph writes."""
    written = {int(index) for operator in opened._get_ops_details() for index in operator["outputs"]}
    written |= {detail["index"] for detail in opened.get_input_details()}
    return [detail for detail in opened.get_tensor_details() if detail["index"] in written]


def _comparable(one: Any, other: Any) -> bool:
    real = np.dtype(other["dtype"]).kind == "f" or other["quantization"][0] > 0
    alike = math.prod(map(int, one["shape"])) == math.prod(map(int, other["shape"]))
    return np.dtype(one["dtype"]).kind == "f" and bool(real) and alike
