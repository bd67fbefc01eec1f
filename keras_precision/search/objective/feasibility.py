"""Feasibility of a budget, checked before a search on the smallest and the most precise plan."""

from dataclasses import replace

from keras_precision.core.errors import ExportError, FileFormatError, InputError, PlanError
from keras_precision.core.formats.deployment import DEPLOYMENT_PRECISIONS
from keras_precision.export.plan_space import Assignment, Space
from keras_precision.search.evaluation.evaluator import Evaluator
from keras_precision.search.objective.budget import Budget

__all__ = ["check_reachable", "needs_float_io"]


def needs_float_io(budget: Budget, evaluator: Evaluator) -> bool:
    """Whether integer inputs and outputs alone ruin the predictions of every plan, or put them beyond the budget.

    Features of unlike scale in one input are a cause: an int8 input has one scale for all of them.
    """
    quality = replace(budget, max_size_bytes=None, max_latency_ms=None)
    precise = _extreme(evaluator.space, smallest=False)

    def is_usable(judge: Evaluator) -> bool:
        evaluation = judge(precise)
        return quality.is_satisfied_by(evaluation.figures) and judge.is_like_reference(evaluation.predictions)

    if evaluator.space.plan(precise).io_type == "float32":
        return False
    try:
        return not is_usable(evaluator) and is_usable(evaluator.with_io("float32"))
    except (ExportError, FileFormatError, PlanError):
        return False  # the trial of this plan will say why


def check_reachable(budget: Budget, evaluator: Evaluator) -> None:
    """Raise ``InputError`` if no plan of the space can meet the budget; the message has the nearest limit."""
    space = evaluator.space
    if budget.max_size_bytes is not None:
        least = evaluator.size(_extreme(space, smallest=True))
        if least > budget.max_size_bytes:
            raise InputError(
                f"Expected max_size_bytes of at least {least:,.0f}, the smallest file of these choices. "
                f"Received: {budget.max_size_bytes:,.0f}. Add a narrower choice, or take a smaller model."
            )
    qualities = {name: limit for name, limit in budget.limits().items() if name in ("metric_drop", "divergence")}
    if qualities:
        figures = evaluator(_extreme(space, smallest=False)).figures
        for name, limit in qualities.items():
            if figures[name] > limit:
                raise InputError(
                    f"Expected max_{name} of at least {figures[name]:.6g}, which the most precise of these choices has. "
                    f"Received: {limit:.6g}. Add a wider choice, such as 'int16x8' or 'float32'."
                )
    if budget.max_latency_ms is not None:
        times = [
            evaluator(space.everywhere(choice)).figures["latency_ms"]
            for unit in space.units[:1]
            for choice in unit.choices
        ]
        if min(times) > 2 * budget.max_latency_ms:  # a mixed plan can be faster, but not twice as fast
            raise InputError(
                f"Expected max_latency_ms of about {min(times):.3g}, which the fastest of the choices takes for all layers on "
                f"this machine. Received: {budget.max_latency_ms:.3g}. Take a smaller model."
            )


def _extreme(space: Space, *, smallest: bool) -> Assignment:
    """Return the plan in which every unit has the fewest bits, or the most."""

    def width(choice: str) -> tuple[int, int]:
        precision = DEPLOYMENT_PRECISIONS[choice]
        weights, activations = precision.weight_bits, precision.activation_bits
        return (weights, activations) if smallest else (activations, weights)

    chosen = min if smallest else max
    return tuple(chosen(unit.choices, key=width) for unit in space.units)
