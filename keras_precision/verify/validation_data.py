"""Validation data in any form of ``fit``, as the samples and labels of ``kp.evaluate``."""

from typing import Any

from keras_precision._adapters.data.samples import is_in_memory
from keras_precision.core.errors import DataError

__all__ = ["samples_and_labels"]


def samples_and_labels(data: Any) -> tuple[Any, Any]:
    """Return samples and labels, without weights, before any of them is read.

    The labels of what yields batches (``tf.data``, ``PyDataset``, torch ``DataLoader``, generator) are None: they come with
    the samples.
    """
    if isinstance(data, tuple | list):
        if len(data) not in (2, 3) or data[1] is None:
            raise DataError(
                f"Expected validation_data=(samples, labels). Received: a {type(data).__name__} of {len(data)}"
                f"{', without labels' if len(data) in (2, 3) else ''}. To score no file, leave it out."
            )
        return data[0], data[1]
    if is_in_memory(data) or isinstance(data, str | bytes):
        raise DataError(
            f"Expected validation_data=(samples, labels), or a dataset of such batches. Received: {type(data).__name__}."
        )
    return data, None
