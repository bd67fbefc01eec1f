"""RuntimeSession: a file that is opened in its runtime, and predicts samples."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import DataError
from keras_precision.core.model_inputs import fits_shape, in_order
from keras_precision.runtimes.model_info import EdgeModel, Tensor, runnable_sample

__all__ = ["Inputs", "RuntimeSession", "join_outputs"]

Array = npt.NDArray[Any]
Inputs = Array | Sequence[Array] | Mapping[str, Array]


class RuntimeSession(ABC):
    """An opened file; subclasses run one batch of the size that it takes."""

    def __init__(self, model: EdgeModel) -> None:
        self.model = model

    @abstractmethod
    def run(self, sample: Sequence[Array]) -> list[Array]:
        """Run the model once: one array per input, of exactly the input's shape, to one per output."""

    def runnable_sample(self) -> list[Array]:
        """Return a batch that the file takes, where the caller has none."""
        return runnable_sample(self.model, self.run)

    def samples(self, inputs: Inputs) -> Iterator[list[Array]]:
        """Split inputs into batches of the size that the file takes.

        Args:
            inputs: One array of shape (n, ...), or one per input, as a mapping by name or as a sequence, which is in the
                order of ``model.inputs`` if this package wrote the file, else in the order that the shapes tell.

        Yields:
            One array per input, of the input's shape; the last batch is filled with its last sample.

        Raises:
            DataError: Their count, shape or dtype does not fit the file.
        """
        return self._batches(self._arrays(inputs))

    def predict(self, inputs: Inputs) -> Array | list[Array]:
        """Return the model's outputs for all samples.

        Args:
            inputs: As for ``samples``.

        Returns:
            Array of shape (n, ...), or a list of them if the model has several outputs. An output without a batch axis,
            such as ten boxes of one image, gets one.

        Raises:
            DataError: The inputs do not fit the file, or an output has no row for each sample of a batch.
        """
        arrays = self._arrays(inputs)
        outputs = join_outputs(self._calls(arrays), self.model.outputs, self.model.batch_size)
        return outputs[0][: len(arrays[0])] if len(outputs) == 1 else [array[: len(arrays[0])] for array in outputs]

    def _calls(self, arrays: list[Array]) -> list[list[Array]]:
        """The outputs for all samples, call by call, as the runtime returns them."""
        return [self.run(sample) for sample in self._batches(arrays)]

    def _arrays(self, inputs: Inputs) -> list[Array]:
        """One array of shape (n, ...) per input of the file, in its order."""
        entries = self.model.model_inputs
        arrays = [
            np.asarray(array) for array in in_order([inputs] if isinstance(inputs, np.ndarray) else inputs, entries)
        ]
        for entry, array in zip(entries, arrays, strict=True):
            if not array.ndim or not fits_shape(array.shape[1:], entry.shape) or len(array) == 0:
                sizes = ", ".join("any" if size is None else str(size) for size in entry.shape)
                raise DataError(
                    f"Expected samples of shape (n, {sizes}) for the input '{entry.name}'. Received: {array.shape}."
                )
            if array.dtype.kind not in "biuf":
                raise DataError(f"Expected numbers for the input '{entry.name}'. Received: dtype {array.dtype}.")
        if len({len(array) for array in arrays}) > 1:
            raise DataError(f"Expected as many samples for each input. Received: {[len(array) for array in arrays]}.")
        return arrays

    def _batches(self, arrays: Sequence[Array]) -> Iterator[list[Array]]:
        """Samples of all inputs, in batches of the file's size; a file without batches takes the samples one by one."""
        size = self.model.batch_size
        batched = [self.model.has_batch_axis(tensor) for tensor in self.model.inputs]
        for start in range(0, len(arrays[0]), size):
            yield [
                _filled(array[start : start + size], size) if has_axis else array[start]
                for array, has_axis in zip(arrays, batched, strict=True)
            ]


def join_outputs(calls: Sequence[Sequence[Array]], outputs: Sequence[Tensor], size: int) -> list[Array]:
    """Return one array of real numbers of shape (n, ...) per output, from those of calls of ``size`` samples."""
    if not outputs:
        raise DataError("Expected a file with outputs. Received: one that has none. Export the model again.")
    return [
        tensor.dequantize(_joined([call[number] for call in calls], tensor.name, size))
        for number, tensor in enumerate(outputs)
    ]


def _joined(parts: Sequence[Array], name: str, size: int) -> Array:
    """The rows of all samples; where the first axis of an output is not that of the batch, the whole is one sample's."""
    shapes = {np.shape(part) for part in parts}
    if len(shapes) == 1 and np.shape(parts[0])[:1] == (size,):
        return np.concatenate(parts)
    if len(shapes) == 1 and size == 1:
        return np.stack(parts)
    raise DataError(
        f"Expected an output '{name}' with one row per sample, of the same shape in all calls. "
        f"Received: {' and '.join(map(str, sorted(shapes)[:2]))} for batches of {size}. Call a session's run for the outputs of one batch."
    )


def _filled(part: Array, size: int) -> Array:
    """A batch, the last sample repeated where some are missing: zeros need not be valid."""
    return np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)]) if len(part) < size else part
