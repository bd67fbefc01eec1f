"""Recording of all tensors of a float file on data, sample by sample or in batches."""

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.system.captured_output import capture_output
from keras_precision.runtimes.tflite.file import input_details, interpreter

__all__ = ["BATCH", "TensorRecorder"]

Array = npt.NDArray[Any]
Samples = Mapping[str, Array]

BATCH = 16
"""Samples per run, where the graph allows it."""

_MAX_BYTES = 64e6  # of all tensors of one run


class TensorRecorder:
    """An interpreter of a float file that preserves all tensors, of which it reads those of some numbers.

    It runs up to ``batch`` samples at once, or single samples where the graph has a fixed shape inside.
    """

    def __init__(self, content: bytes, tensors: Sequence[int], batch: int = BATCH) -> None:
        with tempfile.TemporaryDirectory() as folder, capture_output("interpreter"):
            path = Path(folder) / "model.tflite"
            path.write_bytes(content)
            self._single = interpreter(path, delegates=False, keep=True)
            batch = min(batch, int(_MAX_BYTES / _bytes(self._single, tensors)))
            self._batched = _batched(interpreter(path, delegates=False, keep=True), batch) if batch > 1 else None
        self.batch = batch if self._batched is not None else 1
        self._tensors = tensors

    def run(self, batches: Iterable[Samples], record: Callable[[int, Array], None]) -> Iterator[int]:
        """Run batches, input name to an array of shape (n, ...), and yield the number of samples after every run.

        ``record`` is called with the number of a tensor and its values, of shape (n, ...) or of one
        sample; they are memory of the interpreter, which the next run overwrites.
        """
        for batch in batches:
            count = len(next(iter(batch.values())))
            start = 0
            while start < count:
                size = self.batch if count - start >= self.batch else 1
                self._run({name: array[start : start + size] for name, array in batch.items()}, size, record)
                start += size
                yield size

    def _run(self, part: Samples, size: int, record: Callable[[int, Array], None]) -> None:
        runner = self._batched if size > 1 else self._single
        assert runner is not None
        for name, detail in input_details(runner):
            runner.set_tensor(detail["index"], part[name])
        runner.reset_all_variables()
        runner.invoke()
        for number in self._tensors:
            record(number, runner.tensor(number)())


def _bytes(runner: Any, tensors: Sequence[int]) -> int:
    """Return the bytes of the tensors of one sample."""
    shapes = {detail["index"]: detail["shape"] for detail in runner.get_tensor_details()}
    return max(1, sum(4 * math.prod(map(int, shapes[number])) for number in tensors))


def _batched(runner: Any, batch: int) -> Any:
    """Return the interpreter with a larger batch; None where the outputs of a sample then depend on other samples.

    The interpreter may accept a batch in spite of a fixed shape inside the graph, so the outputs for a batch of
    random samples are compared with those for single samples.
    """
    details = [detail for _, detail in input_details(runner)]
    shapes = {detail["index"]: detail["shape"] for detail in details}
    generator = np.random.default_rng(0)
    samples = {
        detail["index"]: generator.integers(0, 2, (batch, *detail["shape"][1:])).astype(detail["dtype"])
        for detail in details
    }
    single = [_outputs(runner, {index: values[:1] for index, values in samples.items()})]
    single.append(_outputs(runner, {index: values[-1:] for index, values in samples.items()}))
    try:
        for index, shape in shapes.items():
            runner.resize_tensor_input(index, (batch, *shape[1:]))
        runner.allocate_tensors()
        together = _outputs(runner, samples)
    except (RuntimeError, ValueError):  # the interpreter refuses the shape
        return None
    same = all(
        len(values) == batch and np.allclose(values[[0, -1]], np.concatenate(pair), rtol=1e-3, atol=1e-5)
        for values, pair in zip(together, zip(*single, strict=True), strict=True)
    )
    return runner if same else None


def _outputs(runner: Any, samples: Mapping[int, Array]) -> list[Array]:
    for index, values in samples.items():
        runner.set_tensor(index, values)
    runner.reset_all_variables()
    runner.invoke()
    return [np.atleast_1d(runner.get_tensor(detail["index"])) for detail in runner.get_output_details()]
