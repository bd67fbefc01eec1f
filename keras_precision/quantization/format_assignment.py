"""Which number format each operator of a float file gets under a plan."""

from collections.abc import Mapping, Sequence

from keras_precision.core.errors import PlanError
from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.plan import PrecisionPlan
from keras_precision.quantization.layer_trace import Layers
from keras_precision.quantization.range_estimators import FIXED
from keras_precision.runtimes.tflite.file import Operator

__all__ = ["assigned", "assigned_ranges"]


def assigned(operators: Sequence[Operator], layers: Layers, plan: PrecisionPlan) -> list[str]:
    """Return the number format of each operator.

    An operator may compute several layers at once (a convolution, the batch normalization folded
    into it, its activation): it gets the format of those that the plan names.

    Args:
        operators: The operators of the float file.
        layers: The layers that each computes.
        plan: A deployment plan.

    Returns:
        A deployment precision for each operator.

    Raises:
        PlanError: The plan wants two formats for layers that are one operator.
    """
    found = []
    for operator, owners in zip(operators, layers, strict=True):
        named = {path: plan.layers[path] for path in owners if path in plan.layers}
        if len(set(named.values())) > 1:
            wanted = ", ".join(f"'{path}' in {precision}" for path, precision in named.items())
            raise PlanError(
                f"Expected one precision for layers that are one operator ({operator.kernel}) of the file. Received: {wanted}. "
                "Give them the same precision."
            )
        found.append(next(iter(named.values()), plan.default))
    return found


def assigned_ranges(
    operators: Sequence[Operator], formats: Sequence[str], chosen: Mapping[str, Range], full: Mapping[str, Range]
) -> dict[str, Range]:
    """Return the range of each activation: the full one where 16 bits leave no need to clip, or that of its kernel.

    Args:
        operators: The operators of the float file.
        formats: The number format of each.
        chosen: Name of each activation to the range that was chosen for 8 bits.
        full: The same names, each to the range of all values.

    Returns:
        Name to range.
    """
    fixed = {operator.tensors[0]: FIXED[operator.kernel] for operator in operators if operator.kernel in FIXED}
    if set(formats) == {"int16x8"}:
        return {**full, **fixed}
    pairs = zip(operators, formats, strict=True)
    wide = {name for operator, precision in pairs if precision == "int16x8" for name in operator.tensors}
    return {name: full[name] if name in wide else found for name, found in chosen.items()} | fixed
