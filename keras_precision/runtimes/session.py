"""RuntimeSession: a file in a runtime other than TensorFlow Lite's, with the interface of ``kp.edge.Session``."""

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
    """A session whose subclasses run one sample; samples are split and joined as for ``.tflite`` files."""

    def __init__(self, model: EdgeModel) -> None:
        self.model = model

    @abstractmethod
    def run(self, sample: Sequence[Array]) -> list[Array]:
        """Run the model once: one array per input, of exactly the input's shape, to one per output."""

    def predict(self, inputs: Inputs) -> Array | list[Array]:
        """Return the model's outputs for all samples, an array of shape (n, ...), or a list of them."""
        outputs = [self.run(sample) for sample in self.samples(inputs)]
        arrays = (
            [inputs]
            if isinstance(inputs, np.ndarray)
            else list(inputs.values() if isinstance(inputs, Mapping) else inputs)
        )
        joined = [np.concatenate(parts)[: len(arrays[0])] for parts in zip(*outputs, strict=True)]
        return joined[0] if len(joined) == 1 else joined
