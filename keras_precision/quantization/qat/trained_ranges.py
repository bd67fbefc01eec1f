"""TrainedRanges: a calibration whose ranges come from training."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from keras_precision.core.formats.affine_integers import Range
from keras_precision.quantization.calibration import Calibration

__all__ = ["TrainedRanges"]


@dataclass(frozen=True)
class TrainedRanges(Calibration):
    """A calibration with trained ranges, by the name of a tensor of the float file, in place of estimated ones."""

    trained: Mapping[str, Range] = field(default_factory=dict, repr=False)

    def ranges(self, method: str = "mse", *, percentile: float = 99.99) -> dict[str, Range]:
        """Return the range of every activation, by the method where there is no trained one."""
        return {**super().ranges(method, percentile=percentile), **self.trained}
