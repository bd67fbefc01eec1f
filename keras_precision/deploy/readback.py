"""What a written file does, held against the plan that it was written for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keras_precision.errors import PlanNotHonouredError
from keras_precision.plan import PrecisionPlan
from keras_precision.tflite_file import EdgeModel, Operator

__all__ = ["Trace", "check_plan", "layers_of", "realised_plan"]


Layers = list[tuple[str, ...]]
"""For each operator of a file, the paths of the layers that it computes."""


@dataclass(frozen=True)
class Trace:
    """The graph of a model, as far as its layers can be told from it.

    Attributes:
        scopes: Graph operation, and graph scope, to layer path.
        outputs: For each output of the model, the path of the layer that makes it; None if no layer does.
    """

    scopes: Mapping[str, str]
    outputs: tuple[str | None, ...]

    def path_of(self, name: str) -> str | None:
        """Return the layer of a graph operation, by its name or the innermost scope that is known.

        Args:
            name: The operation, as graph or file name it.

        Returns:
            The path; None if no layer claims it.
        """
        # A constant that shares its operation's name gets a number behind it: MatMul1.
        for candidate in (name, re.sub(r"\d+$", "", name)):
            if candidate in self.scopes:
                return self.scopes[candidate]
        scope = name.rpartition("/")[0]
        while scope:
            if scope in self.scopes:
                return self.scopes[scope]
            scope = scope.rpartition("/")[0]
        return None


def layers_of(model: EdgeModel, trace: Trace) -> Layers:
    """Return the layers that each operator of a file computes.

    The converter names a tensor after the graph operations that were fused into it, joined by
    semicolons, and gives the outputs of the file other names; an operator that is left without a
    name belongs to the layer that it reads from.

    Args:
        model: The file.
        trace: The graph that it was made from.

    Returns:
        For each operator, the paths of its layers; empty where they cannot be told.
    """
    makers = {writer: path for writer, path in zip(model.writers, trace.outputs, strict=True) if path is not None}
    found: list[tuple[str, ...]] = []
    for index, operator in enumerate(model.operators):
        own = [path for name in operator.tensors for part in name.split(";") if (path := trace.path_of(part))]
        own = own or ([makers[index]] if index in makers else [])
        inherited = [path for number in operator.reads for path in found[number][-1:]]
        found.append(tuple(dict.fromkeys(own or inherited)))
    return found


def realised_plan(model: EdgeModel, plan: PrecisionPlan, layers: Layers, paths: Sequence[str]) -> PrecisionPlan:
    """Return the plan that a file realises.

    Args:
        model: The file.
        plan: The plan that it was written for.
        layers: The layers that each operator computes, from ``layers_of``.
        paths: All layer paths of the model.

    Returns:
        A plan with the same default, that names each layer whose operators compute otherwise. A
        layer that left no operator of its own (dropout, a folded batch normalization) is taken to
        be in the precision of the whole file if it has a single one.
    """
    used: dict[str, list[str]] = {}
    for operator, owners in zip(model.operators, layers, strict=True):
        for path in owners:
            if _computes(operator, plan.precision_of(path)):
                used.setdefault(path, []).append(operator.precision)
    everywhere = {operator.precision for operator in model.operators if _computes(operator, plan.default)}
    only = everywhere.pop() if len(everywhere) == 1 else plan.default
    realised = {path: _one(used.get(path, [only]), plan.precision_of(path)) for path in paths}
    return PrecisionPlan.deployment(
        plan.default, layers={path: value for path, value in realised.items() if value != plan.default}
    )


def check_plan(
    model: EdgeModel, plan: PrecisionPlan, realised: PrecisionPlan, layers: Layers, *, strict: bool
) -> tuple[str, ...]:
    """Raise where a file does not honour its plan; report what was relaxed.

    Args:
        model: The file.
        plan: The plan that it was written for.
        realised: The plan that it realises.
        layers: The layers that each operator computes, from ``layers_of``.
        strict: Whether operators under the plan's default must be honoured too.

    Returns:
        Notes: each names an operator, and its layer, that stayed in another precision than the default.

    Raises:
        PlanNotHonouredError: A layer that the plan names is in another precision, or, if
            ``strict``, any operator is.
    """
    for path, wanted in plan.layers.items():
        if (got := realised.precision_of(path)) != wanted:
            raise PlanNotHonouredError(
                f"Expected the layer '{path}' in {wanted}, as the plan says. Received: {got} in the file. "
                "TFLiteConverter has one precision for a whole model: leave the layer out of the plan, or change the default."
            )
    relaxed = []
    for operator, owners in zip(model.operators, layers, strict=True):
        wanted_here = {plan.precision_of(path) for path in owners} or {plan.default}
        where = f"operator {operator.kernel} of " + (f"layer '{owners[0]}'" if owners else f"'{operator.tensors[0]}'")
        if operator.precision == "opaque":
            relaxed.append(f"{where} holds operators of its own, which were not looked into")
        elif operator.precision not in wanted_here and _computes(operator, plan.default):
            relaxed.append(f"{where} stayed in {operator.precision}")
    if strict and relaxed:
        raise PlanNotHonouredError(
            f"Expected every operator in {plan.default} (strict=True). Received: {'; '.join(relaxed)}. "
            "Replace those layers, or export with strict=False."
        )
    return tuple(relaxed)


def _computes(operator: Operator, wanted: str) -> bool:
    """Tell whether an operator's precision says anything about a layer that is wanted in ``wanted``."""
    if operator.precision in ("cast", "index", "opaque"):
        return False
    # float16 is a format of weights: without any, an operator has nothing to store in it.
    return not (wanted == "float16" and operator.precision == "float32" and not operator.weights)


def _one(used: Sequence[str], wanted: str) -> str:
    """The precision of a layer with several operators: the one that differs from the plan, if any does."""
    return next((precision for precision in used if precision != wanted), wanted)
