"""Which layers a search chooses among, and which precisions the file really computes each of them in."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from keras_precision.core.errors import InputError, PlanError
from keras_precision.core.plan import Kind, PrecisionPlan, check_precision
from keras_precision.export.candidate import read_back
from keras_precision.export.macs import macs
from keras_precision.export.plan_compiler import FileMaker
from keras_precision.export.plan_space import Space, Unit
from keras_precision.export.readback import realised_plan
from keras_precision.quantization.layer_trace import Trace, layers_of
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.runtimes.tflite.kernel_support import check_runtime, obstacles

__all__ = ["check_choices", "find_space"]


def check_choices(choices: Sequence[str], kind: Kind = "deployment") -> tuple[str, ...]:
    """Return the choices, checked.

    Args:
        choices: Precisions.
        kind: Of plans that they are for.

    Returns:
        The same, as a tuple.

    Raises:
        InputError: There are fewer than two, or one stands there twice.
        UnknownPrecisionError: One is no precision of that kind.
    """
    given = (choices,) if isinstance(choices, str) else tuple(choices)
    for choice in given:
        check_precision(choice, kind, "a choice")
    if len(given) < 2 or len(set(given)) < len(given):
        raise InputError(f"Expected two or more precisions to choose from, each once. Received: {given!r}.")
    return given


def find_space(
    maker: FileMaker, trace: Trace, weights: Mapping[str, int], choices: Sequence[str], runtime: str = "litert"
) -> Space:
    """Return the units of a model, each with the precisions that its file honours.

    For each choice a file is made in which every layer has it; it is read back, and what it
    computes says which layers can have the choice.

    Args:
        maker: Makes the model's files.
        trace: The graph of the model.
        weights: Layer path to its number of weights.
        choices: Deployment precisions, from ``check_choices``.
        runtime: What the file is to run on.

    Returns:
        The space.

    Raises:
        PlanError: No layer has two of the choices, or no layer has one of them.
        InputError: The runtime is unknown.
    """
    check_runtime(runtime)
    baseline = "int8" if "int8" in choices else choices[0]
    units = _units(maker, weights)
    if not units:
        raise PlanError(
            "Expected layers with weights to choose for. Received: a model without any. Its precision follows from its inputs: "
            "export it with kp.export_tflite."
        )
    found = {choice: _honoured(maker, trace, Space(units, baseline), choice, runtime) for choice in choices}
    space = Space(tuple(_with_choices(unit, choices, found) for unit in units), baseline)
    for choice in choices:
        if not any(choice in unit.choices for unit in space.units):
            raise PlanError(
                f"Expected choices that {runtime} computes layers of this model in. Received: '{choice}', which none of its "
                f"{len(units)} layers with weights can have. Leave it out of choices."
            )
    kept = tuple(unit for unit in space.units if unit.choices)
    if not any(len(unit.choices) > 1 for unit in kept):
        raise PlanError(
            f"Expected a layer with two precisions to choose from. Received: a model with {len(units)} layers with weights, of "
            f"which none can have more than one of {', '.join(choices)}."
        )
    return Space(kept, baseline)


def _units(maker: FileMaker, weights: Mapping[str, int]) -> tuple[Unit, ...]:
    """Layers with weights, joined where they share an operator, or have several."""
    counts = macs(maker.float_content)
    groups: list[tuple[set[str], set[int]]] = []  # all paths, and the operators that have weights
    for number, (operator, owners) in enumerate(zip(maker.operators, maker.layers, strict=True)):
        heavy = {path for path in owners if weights.get(path)}
        if not heavy or not operator.weights or operator.precision in ("index", "opaque"):
            continue
        joined = (set(heavy), {number})
        for group in [group for group in groups if group[0] & heavy]:
            groups.remove(group)
            joined = (joined[0] | group[0], joined[1] | group[1])
        groups.append(joined)
    groups.sort(key=lambda group: min(group[1]))
    makers = {number: index for index, (_, numbers) in enumerate(groups) for number in numbers}
    followers = _followers(maker, makers)
    return tuple(
        Unit(
            name=(mains := _mains(maker, paths, numbers, weights))[0],
            paths=mains,
            choices=(),
            followers={"*": followers.get(index, ())},
            macs=sum(counts[number] for number in numbers),
        )
        for index, (paths, numbers) in enumerate(groups)
    )


def _mains(
    maker: FileMaker, paths: Iterable[str], numbers: Iterable[int], weights: Mapping[str, int]
) -> tuple[str, ...]:
    """Of the layers in each operator, the one with the most weights: a convolution, not its normalization."""
    mains = []
    for number in sorted(numbers):
        own = [path for path in maker.layers[number] if path in paths]
        mains.append(max(own, key=lambda path: weights.get(path, 0)))
    return tuple(dict.fromkeys(mains))


def _followers(maker: FileMaker, makers: Mapping[int, int]) -> dict[int, tuple[str, ...]]:
    """For each unit, the layers without weights all of whose operators read from it alone, directly or by others."""
    source: dict[int, int | None] = {}
    layers: dict[str, set[int | None]] = {}
    for number, (operator, owners) in enumerate(zip(maker.operators, maker.layers, strict=True)):
        if number in makers:
            source[number] = makers[number]
        else:
            read = {source[each] for each in operator.reads}
            source[number] = read.pop() if len(read) == 1 else None
        for path in owners:
            layers.setdefault(path, set()).add(source[number])
    heavy = {path for number in makers for path in maker.layers[number]}
    found: dict[int, tuple[str, ...]] = {}
    for path, sources in layers.items():
        only = next(iter(sources)) if len(sources) == 1 else None
        if only is not None and path not in heavy:
            found[only] = (*found.get(only, ()), path)
    return found


def _honoured(
    maker: FileMaker, trace: Trace, space: Space, choice: str, runtime: str
) -> tuple[PrecisionPlan, PrecisionPlan, set[str]]:
    """The plan with one precision everywhere, what its file computes, and the layers that the runtime cannot run."""
    units = tuple(replace(unit, choices=(choice,), followers={choice: unit.followers["*"]}) for unit in space.units)
    whole = Space(units, space.baseline)
    plan = whole.plan(whole.everywhere(choice))
    model: EdgeModel = read_back(maker(plan))
    layers = layers_of(model, trace)
    realised = realised_plan(model, plan, layers, list(trace.paths))
    lacking = {path for number, _ in obstacles(model, runtime) for path in layers[number]}
    return plan, realised, lacking


def _with_choices(
    unit: Unit, choices: Sequence[str], found: Mapping[str, tuple[PrecisionPlan, PrecisionPlan, set[str]]]
) -> Unit:
    kept, followers = [], {}
    for choice in choices:
        plan, realised, lacking = found[choice]
        if all(realised.precision_of(path) == choice and path not in lacking for path in unit.paths):
            kept.append(choice)
            followers[choice] = tuple(
                path
                for path in unit.followers["*"]
                if realised.precision_of(path) == plan.precision_of(path) and path not in lacking
            )
    return replace(unit, choices=tuple(kept), followers=followers)
