"""Validation data, in any form that ``fit`` takes them, as ``kp.evaluate`` takes samples and labels."""

from typing import Any

from keras_precision._adapters.data.samples import at_once
from keras_precision.core.errors import DataError

__all__ = ["samples_and_labels"]


def samples_and_labels(data: Any) -> tuple[Any, Any]:
    """Return samples and labels, before any of them is read.

    Args:
        data: ``(samples, labels)`` or ``(samples, labels, weights)``, or what yields batches of them (``tf.data``,
            ``PyDataset``, torch ``DataLoader``, generator).

    Returns:
        Both, for ``kp.evaluate``, without weights; the labels of what yields batches are None: they come with the samples.

    Raises:
        DataError: It is something else.
    """
    if isinstance(data, tuple | list):
        if len(data) not in (2, 3) or data[1] is None:
            raise DataError(
                f"Expected validation_data=(samples, labels). Received: a {type(data).__name__} of {len(data)}"
                f"{', without labels' if len(data) in (2, 3) else ''}. To score no file, leave it out."
            )
        return data[0], data[1]
    if at_once(data) or isinstance(data, str | bytes):
        raise DataError(
            f"Expected validation_data=(samples, labels), or a dataset of such batches. Received: {type(data).__name__}."
        )
    return data, None
