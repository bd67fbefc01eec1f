"""RoundingChoice: which weights may be rounded by the second order, on which samples, and which samples judge it."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.formats.deployment import DEPLOYMENT_PRECISIONS
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.weight_rounding import Rounding, WeightRounding, round_all_weights

__all__ = ["RoundingChoice"]

Array = npt.NDArray[Any]

_LEAST_SAMPLES = 16
"""Fewer tell nothing of how the inputs of a layer go together, and leave too few samples to judge by."""
_JUDGED = 4
"""Of so many samples weights are rounded on all but one, which judges."""
_FEW_BITS = 4
"""Of weights that are rounded by the second order unless that is worse: with 8 bits there is little to gain."""


class RoundingChoice:
    """The weights of a calibration's float file that ``rounding`` asks for.

    Args:
        calibration: The calibration.
        rounding: How weights are rounded: one of ``ROUNDINGS``.

    Attributes:
        rounding: As the argument.
    """

    def __init__(self, calibration: Calibration, rounding: Rounding) -> None:
        self._calibration = calibration
        self.rounding = rounding

    def is_possible(self, precision: str) -> bool:
        """Whether weights in a precision are to be rounded by the second order if that is better, and can be."""
        return self._is_considered(precision) and self._count >= _LEAST_SAMPLES

    def weights(self, precision: str) -> WeightRounding:
        """Return the rounded weights of all operators, which are computed once for a calibration."""
        rounded = self._calibration.rounded
        if precision not in rounded:
            held = self._calibration.held
            samples = {name: values[~self._judges] for name, values in held.items()}
            rounded[precision] = round_all_weights(self._calibration.float_file.content, samples, precision)
        return rounded[precision]

    def judging_samples(self, precision: str) -> Array:
        """Return the numbers of the samples on which files in a precision are compared: no weight of it is rounded on them."""
        return np.flatnonzero(self._judges) if self.is_possible(precision) else np.arange(self._count)

    def notes(self, chosen: Mapping[str, bool]) -> Iterator[str]:
        """Say, for each precision, whether its weights are rounded by the second order, and why it was not tried."""
        for precision, is_rounded in sorted(chosen.items()):
            if is_rounded:
                yield f"weights in {precision} are rounded by the second order (GPTQ)"
            elif self._is_considered(precision) and self._count < _LEAST_SAMPLES:
                yield (
                    f"weights in {precision} are rounded to the nearest: second-order rounding needs {_LEAST_SAMPLES} samples, "
                    f"and the calibration stores {self._count}"
                )

    @property
    def _count(self) -> int:
        return len(next(iter(self._calibration.held.values()), ()))

    def _is_considered(self, precision: str) -> bool:
        deployed = DEPLOYMENT_PRECISIONS[precision]
        is_asked_for = self.rounding == "gptq" or (self.rounding == "auto" and deployed.weight_bits <= _FEW_BITS)
        return is_asked_for and deployed.needs_ranges

    @property
    def _judges(self) -> Array:
        """Whether a sample judges, where weights are rounded on others."""
        return np.asarray(np.arange(self._count) % _JUDGED == _JUDGED - 1)
