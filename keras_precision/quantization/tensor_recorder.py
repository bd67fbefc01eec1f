"""What a float file's tensors look like on data: run sample by sample or in batches, every tensor kept."""

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.system.captured_output import captured
from keras_precision.runtimes.tflite.file import input_details, interpreter

__all__ = ["BATCH", "Observer"]

Array = npt.NDArray[Any]
Samples = Mapping[str, Array]

BATCH = 16
"""Samples that are run at once, where the graph allows it."""

_KEPT_BYTES = 64e6  # all tensors of one run


class Observer:
    """An interpreter that keeps every tensor, ready to run samples.

    Args:
        content: A float ``.tflite`` file for one sample at a time.
        tensors: Numbers of the tensors to read.
        batch: Samples to run at once; the graph is left at one where it does not allow more, as
            one with a fixed shape inside it does not.
    """

    def __init__(self, content: bytes, tensors: Sequence[int], batch: int = BATCH) -> None:
        with tempfile.TemporaryDirectory() as folder, captured("interpreter"):
            path = Path(folder) / "model.tflite"
            path.write_bytes(content)
            self._single = interpreter(path, delegates=False, keep=True)
            batch = min(batch, int(_KEPT_BYTES / _bytes(self._single, tensors)))
            self._batched = _batched(interpreter(path, delegates=False, keep=True), batch) if batch > 1 else None
        self.batch = batch if self._batched is not None else 1
        self._tensors = tensors

    def run(self, pieces: Iterable[Samples], look: Callable[[int, Array], None]) -> Iterator[int]:
        """Run samples, and show what their tensors hold.

        Args:
            pieces: Input name to an array of shape (n, ...), piece after piece.
            look: Called with the number of each tensor and its values, of shape (n, ...), or of
                the shape of one sample where the graph takes one at a time. They are the
                interpreter's own memory: it must not keep them.

        Yields:
            How many samples were run.
        """
        for piece in pieces:
            count = len(next(iter(piece.values())))
            start = 0
            while start < count:
                size = self.batch if count - start >= self.batch else 1
                self._run({name: array[start : start + size] for name, array in piece.items()}, size, look)
                start += size
                yield size

    def _run(self, part: Samples, size: int, look: Callable[[int, Array], None]) -> None:
        opened = self._batched if size > 1 else self._single
        assert opened is not None
        for name, detail in input_details(opened):
            opened.set_tensor(detail["index"], part[name])
        opened.reset_all_variables()
        opened.invoke()
        for number in self._tensors:
            look(number, opened.tensor(number)())


def _bytes(opened: Any, tensors: Sequence[int]) -> int:
    """Bytes of the tensors of one sample."""
    shapes = {detail["index"]: detail["shape"] for detail in opened.get_tensor_details()}
    return max(1, sum(4 * math.prod(map(int, shapes[number])) for number in tensors))


def _batched(opened: Any, batch: int) -> Any:
    """The interpreter with a larger batch; None where a sample's answers then depend on the others.

    A graph with a fixed shape inside is refused by the interpreter, or, worse, is not: the answers
    to random samples are compared with those of each sample alone.
    """
    details = [detail for _, detail in input_details(opened)]
    single = {detail["index"]: detail["shape"] for detail in details}
    generator = np.random.default_rng(0)
    samples = {
        detail["index"]: generator.integers(0, 2, (batch, *detail["shape"][1:])).astype(detail["dtype"])
        for detail in details
    }
    alone = [_answers(opened, {index: values[:1] for index, values in samples.items()})]
    alone.append(_answers(opened, {index: values[-1:] for index, values in samples.items()}))
    try:
        for index, shape in single.items():
            opened.resize_tensor_input(index, (batch, *shape[1:]))
        opened.allocate_tensors()
        together = _answers(opened, samples)
    except (RuntimeError, ValueError):  # how the interpreter refuses a shape
        return None
    same = all(
        len(values) == batch and np.allclose(values[[0, -1]], np.concatenate(pair), rtol=1e-3, atol=1e-5)
        for values, pair in zip(together, zip(*alone, strict=True), strict=True)
    )
    return opened if same else None


def _answers(opened: Any, samples: Mapping[int, Array]) -> list[Array]:
    for index, values in samples.items():
        opened.set_tensor(index, values)
    opened.reset_all_variables()
    opened.invoke()
    return [np.atleast_1d(opened.get_tensor(detail["index"])) for detail in opened.get_output_details()]
