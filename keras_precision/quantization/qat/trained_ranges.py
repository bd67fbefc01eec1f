"""TrainedRanges: a calibration whose ranges come from training."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from keras_precision.core.formats.affine_integers import Range
from keras_precision.quantization.calibration import Calibration

__all__ = ["TrainedRanges"]


@dataclass(frozen=True)
class TrainedRanges(Calibration):
    """A calibration whose ranges are those of training, where training had any.

    Attributes:
        trained: Name of a tensor of the float file to its range.
    """

    trained: Mapping[str, Range] = field(default_factory=dict, repr=False)

    def ranges(self, method: str = "mse", *, percentile: float = 99.99) -> dict[str, Range]:
        """Return the range in which each activation is to be quantized.

        Args:
            method: For those that training did not follow.
            percentile: For the method of that name.

        Returns:
            Name of a tensor of the float file to its range.
        """
        return {**super().ranges(method, percentile=percentile), **self.trained}
