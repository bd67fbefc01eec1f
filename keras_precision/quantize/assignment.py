"""Which number format each operator of a float file gets under a plan."""

from collections.abc import Sequence

from keras_precision.errors import PlanError
from keras_precision.plan import PrecisionPlan
from keras_precision.quantize.trace import Layers
from keras_precision.tflite_file import Operator

__all__ = ["assigned"]


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
