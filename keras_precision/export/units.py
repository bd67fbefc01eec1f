"""Units of a search: the layers whose precision it chooses, with the precisions in which the file really computes them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from keras_precision.core.errors import ExportError, InputError, PlanError
from keras_precision.core.plan import Kind, PrecisionPlan, check_precision
from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.export.plan_space import Space, Unit
from keras_precision.export.readback import read_back, realised_plan
from keras_precision.quantization.layer_trace import Trace, layers_of
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer
from keras_precision.runtimes.tflite.kernel_support import check_runtime, unsupported_operators

__all__ = ["check_choices", "find_space"]


def check_choices(choices: Sequence[str], kind: Kind = "deployment") -> tuple[str, ...]:
    """Return two or more precisions of a kind of plans, as a tuple; raise for unknown or repeated ones."""
    precisions = (choices,) if isinstance(choices, str) else tuple(choices)
    for precision in precisions:
        check_precision(precision, kind, "a choice")
    if len(precisions) < 2 or len(set(precisions)) < len(precisions):
        raise InputError(f"Expected two or more precisions to choose from, each once. Received: {precisions!r}.")
    return precisions


def find_space(
    compiler: PlanCompiler, trace: Trace, weights: Mapping[str, int], choices: Sequence[str], runtime: str = "litert"
) -> Space:
    """Return the units of a model, with the precisions that its file honours.

    For every choice a file is compiled in which all layers have it; it is read back, and its operators show which layers
    can have the choice. ``weights`` are counts by layer path.

    Raises:
        PlanError: No layer has two of the choices, or no layer has one of them.
        InputError: The runtime is unknown.
    """
    check_runtime(runtime)
    baseline = "int8" if "int8" in choices else choices[0]
    units = _units(compiler, weights)
    if not units:
        raise PlanError(
            "Expected layers with weights to choose for. Received: a model without any. Its precision follows from its inputs: "
            "export it with kp.export_tflite."
        )
    files = {choice: _honoured(compiler, trace, Space(units, baseline), choice, runtime) for choice in choices}
    space = Space(tuple(_with_choices(unit, choices, files) for unit in units), baseline)
    for choice in choices:
        if not any(choice in unit.choices for unit in space.units):
            raise PlanError(
                f"Expected choices that {runtime} computes layers of this model in. Received: '{choice}', which none of its "
                f"{len(units)} layers with weights can have. Leave it out of choices."
            )
    searchable = tuple(unit for unit in space.units if unit.choices)
    if not any(len(unit.choices) > 1 for unit in searchable):
        raise PlanError(
            f"Expected a layer with two precisions to choose from. Received: a model with {len(units)} layers with weights, of "
            f"which none can have more than one of {', '.join(choices)}."
        )
    return Space(searchable, baseline)


def _units(compiler: PlanCompiler, weights: Mapping[str, int]) -> tuple[Unit, ...]:
    """Layers with weights, joined where they share an operator, or have several."""
    counts = _macs(compiler.float_content)
    groups: list[tuple[set[str], set[int]]] = []  # all paths, and the operators that have weights
    for number, (operator, owners) in enumerate(zip(compiler.operators, compiler.layers, strict=True)):
        heavy = {path for path in owners if weights.get(path)}
        if not heavy or not operator.weights or operator.precision in ("index", "opaque"):
            continue
        joined = (set(heavy), {number})
        for group in [group for group in groups if group[0] & heavy]:
            groups.remove(group)
            joined = (joined[0] | group[0], joined[1] | group[1])
        groups.append(joined)
    groups.sort(key=lambda group: min(group[1]))
    unit_of = {number: index for index, (_, numbers) in enumerate(groups) for number in numbers}
    followers = _followers(compiler, unit_of)
    return tuple(
        Unit(
            name=(mains := _mains(compiler, paths, numbers, weights))[0],
            paths=mains,
            choices=(),
            followers={"*": followers.get(index, ())},
            macs=sum(counts[number] for number in numbers),
        )
        for index, (paths, numbers) in enumerate(groups)
    )


def _mains(
    compiler: PlanCompiler, paths: Iterable[str], numbers: Iterable[int], weights: Mapping[str, int]
) -> tuple[str, ...]:
    """Of the layers in one operator, the one with the most weights: a convolution, not its normalization."""
    mains = []
    for number in sorted(numbers):
        own = [path for path in compiler.layers[number] if path in paths]
        mains.append(max(own, key=lambda path: weights.get(path, 0)))
    return tuple(dict.fromkeys(mains))


def _followers(compiler: PlanCompiler, unit_of: Mapping[int, int]) -> dict[int, tuple[str, ...]]:
    """By unit, the layers without weights all of whose operators read from it alone, directly or through others."""
    source: dict[int, int | None] = {}
    layers: dict[str, set[int | None]] = {}
    for number, (operator, owners) in enumerate(zip(compiler.operators, compiler.layers, strict=True)):
        if number in unit_of:
            source[number] = unit_of[number]
        else:
            read = {source[writer] for writer in operator.reads}
            source[number] = read.pop() if len(read) == 1 else None
        for path in owners:
            layers.setdefault(path, set()).add(source[number])
    heavy = {path for number in unit_of for path in compiler.layers[number]}
    followers: dict[int, tuple[str, ...]] = {}
    for path, sources in layers.items():
        only = next(iter(sources)) if len(sources) == 1 else None
        if only is not None and path not in heavy:
            followers[only] = (*followers.get(only, ()), path)
    return followers


def _honoured(
    compiler: PlanCompiler, trace: Trace, space: Space, choice: str, runtime: str
) -> tuple[PrecisionPlan, PrecisionPlan, set[str]]:
    """The plan with one precision everywhere, what its file computes, and the layers that the runtime cannot run.

    Where that file does not run, it is one of this precision throughout, layers without weights included: two branches in
    int16x8, say, that an int8 concatenation joins. Plans whose own file does not run are failed trials.
    """
    units = tuple(replace(unit, choices=(choice,), followers={choice: unit.followers["*"]}) for unit in space.units)
    whole = Space(units, space.baseline)
    plan = whole.plan(whole.everywhere(choice))
    try:
        model: EdgeModel = read_back(compiler(plan))
    except ExportError:
        plan = PrecisionPlan.deployment(choice)
        model = read_back(compiler(plan))
    layers = layers_of(model, trace)
    realised = realised_plan(model, plan, layers, list(trace.paths))
    lacking = {path for number, _ in unsupported_operators(model, runtime) for path in layers[number]}
    return plan, realised, lacking


def _with_choices(
    unit: Unit, choices: Sequence[str], files: Mapping[str, tuple[PrecisionPlan, PrecisionPlan, set[str]]]
) -> Unit:
    honoured, followers = [], {}
    for choice in choices:
        plan, realised, lacking = files[choice]
        if all(realised.precision_of(path) == choice and path not in lacking for path in unit.paths):
            honoured.append(choice)
            followers[choice] = tuple(
                path
                for path in unit.followers["*"]
                if realised.precision_of(path) == plan.precision_of(path) and path not in lacking
            )
    return replace(unit, choices=tuple(honoured), followers=followers)


def _macs(content: bytes) -> list[int]:
    """Return the multiply-accumulates of every operator for one sample; 0 for those without weights."""
    graph = Flatbuffer(content)
    return [_macs_of(graph, operator) for operator in graph.operators]


def _macs_of(graph: Flatbuffer, operator: Any) -> int:
    per_output = _PER_OUTPUT.get(graph.kernel(operator))
    if per_output is None:
        return 0
    outputs = math.prod(graph.shape(int(operator.outputs[0])))
    return outputs * per_output(graph.shape(int(operator.inputs[1])))


# Weights have the axes (out, height, width, in); those of a depthwise convolution (1, height, width, channels).
_PER_OUTPUT: dict[str, Callable[[tuple[int, ...]], int]] = {
    "CONV_2D": lambda weights: math.prod(weights[1:]),
    "DEPTHWISE_CONV_2D": lambda weights: math.prod(weights[1:3]),
    "FULLY_CONNECTED": lambda weights: weights[-1],
    "BATCH_MATMUL": lambda weights: weights[-2] if len(weights) > 1 else 1,
}
