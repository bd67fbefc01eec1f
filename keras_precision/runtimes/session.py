"""RuntimeSession: a file on a runtime other than TensorFlow Lite's, answering as ``kp.edge`` does."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.runtimes.tflite.session import Inputs, Session

__all__ = ["RuntimeSession"]

Array = npt.NDArray[Any]


class RuntimeSession(Session):
    """What one sample can be given to; cutting and joining samples is that of ``.tflite`` files.

    Attributes:
        model: What the file holds.
    """

    def __init__(self, model: EdgeModel) -> None:
        self.model = model

    @abstractmethod
    def run(self, sample: Sequence[Array]) -> list[Array]:
        """Run the model once."""

    def predict(self, inputs: Inputs) -> Array | list[Array]:
        """Return the model's answers to all samples."""
        answers = [self.run(sample) for sample in self.samples(inputs)]
        arrays = (
            [inputs]
            if isinstance(inputs, np.ndarray)
            else list(inputs.values() if isinstance(inputs, Mapping) else inputs)
        )
        joined = [np.concatenate(parts)[: len(arrays[0])] for parts in zip(*answers, strict=True)]
        return joined[0] if len(joined) == 1 else joined
