"""Assignment of number formats and ranges to the operators of a float file, by a plan."""

from collections.abc import Mapping, Sequence

from keras_precision.core.errors import PlanError
from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.plan import PrecisionPlan
from keras_precision.quantization.layer_trace import OperatorLayers
from keras_precision.quantization.range_estimators import FIXED_RANGES
from keras_precision.runtimes.tflite.file import Operator

__all__ = ["assign_formats", "assign_ranges", "weight_precision"]

_INT4_KERNELS = ("CONV_2D", "FULLY_CONNECTED")
"""The kernels of TensorFlow Lite that take weights of 4 bits."""


def assign_formats(operators: Sequence[Operator], layers: OperatorLayers, plan: PrecisionPlan) -> list[str]:
    """Return the deployment precision of every operator.

    An operator may compute several layers at once (a convolution, the batch normalization folded
    into it, its activation): it gets the format of those that the plan names, and a PlanError where they differ.
    """
    formats = []
    for operator, owners in zip(operators, layers, strict=True):
        named = {path: plan.layers[path] for path in owners if path in plan.layers}
        if len(set(named.values())) > 1:
            requested = ", ".join(f"'{path}' in {precision}" for path, precision in named.items())
            raise PlanError(
                f"Expected one precision for layers that are one operator ({operator.kernel}) of the file. Received: {requested}. "
                "Give them the same precision."
            )
        formats.append(next(iter(named.values()), plan.default))
    return formats


def assign_ranges(
    operators: Sequence[Operator], formats: Sequence[str], chosen: Mapping[str, Range], full: Mapping[str, Range]
) -> dict[str, Range]:
    """Return the range of every activation: the fixed one of its kernel, or ``chosen``, which may clip.

    Activations in 16 bits have steps enough for the ``full`` range.
    """
    fixed = {
        operator.tensors[0]: FIXED_RANGES[operator.kernel] for operator in operators if operator.kernel in FIXED_RANGES
    }
    if set(formats) == {"int16x8"}:
        return {**full, **fixed}
    pairs = zip(operators, formats, strict=True)
    wide = {name for operator, precision in pairs if precision == "int16x8" for name in operator.tensors}
    return {name: full[name] if name in wide else bounds for name, bounds in chosen.items()} | fixed


def weight_precision(kernel: str, precision: str) -> str:
    """Return the precision in which a kernel has its weights, by the precision of its operator in a plan."""
    return "int8" if precision == "int4" and kernel not in _INT4_KERNELS else precision
