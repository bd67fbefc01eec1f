"""The calibration method of a model: the one whose int8 file diverges least from the float file."""

from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.range_estimators import AUTO

__all__ = ["TRIED", "method_of"]

TRIED = ("mse", "minmax")
"""The methods that are compared; the first is taken on a tie."""


def method_of(calibration: Calibration, method: str) -> str:
    """Return a method, or for ``"auto"`` the one whose int8 file diverges least on the samples in the calibration.

    It is decided once per calibration, for every plan.
    """
    if method != AUTO:
        return method
    if AUTO not in calibration.decided:
        calibration.decided[AUTO] = _least_divergent(calibration)
    return calibration.decided[AUTO]


def _least_divergent(calibration: Calibration) -> str:
    measured = {method: PlanCompiler(calibration, method).divergence("int8", corrected=True) for method in TRIED}
    # Unknown of ranges that were trained, an old calibration, a model that is not quantized as a whole, and where the
    # kernels of a method's file would end the process.
    known = {method: divergence for method, divergence in measured.items() if divergence is not None}
    return min(known, key=known.__getitem__) if known else TRIED[0]
