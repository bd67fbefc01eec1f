"""Rules for statistics of layers: the origin of non-finite values, overflow, underflow and dead units."""

import math
from collections.abc import Iterator, Sequence

from keras_precision.core.observation import INITIAL_LOSS_SCALE
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.findings.advice import FINITE_DATA, NEW_WEIGHTS, in_float32, in_policy, slower, with_loss_scaling
from keras_precision.findings.causes import CAUSES
from keras_precision.findings.finding import Finding, Rule, Severity

__all__ = ["LAYER_RULES"]

_FLOAT16_MAX = 65504.0
_FLOAT16_MIN_NORMAL = 2.0**-14  # smaller numbers lose bits, down to 2**-24
# If a tenth of the nonzero gradients becomes 0, training suffers; with less, the weights still learn.
_MIN_UNDERFLOW = 0.1
# A layer with 99 % zeros in its outputs for a whole batch passes on almost no signal.
_DEAD = 0.99
_MAX_NAMED = 4  # other layers in one message


def _origin(result: Result) -> Iterator[Finding]:
    """The origin of the first non-finite value."""
    for row in result.select("first_non_finite"):
        facts = {
            fact.metric: fact.value
            for fact in result
            if fact.step == row.step and fact.subject == row.subject and fact.metric.startswith("first_non_finite_")
        }
        phase, layer = str(row.value), facts.get("first_non_finite_layer")
        if phase == "not found again":
            continue
        harmless = facts.get("first_non_finite_loss") == "finite" and _has_loss_scaling(result) and not _starves(result)
        where = f"in step {row.step}" if row.step is not None else _rehearsed(result, phase)
        low, high = facts.get("first_non_finite_from"), facts.get("first_non_finite_to")
        input_range = f" Input range: [{_number(low)}, {_number(high)}]." if low is not None else ""
        severity: Severity = "info" if harmless else "error"
        why = (
            "The step was skipped, and its loss was finite: this is how dynamic loss scaling adjusts its scale."
            if harmless
            else _WHY.get(phase.partition(",")[0], "")
        ) + ("" if phase == "data" else _tried(result, row.step))
        yield Finding(
            code="non-finite" if not harmless else "non-finite-harmless",
            severity=severity,
            subject=row.subject,
            message=f"The first non-finite value arose {where} {_place(phase, row.subject, layer)}.{input_range} {why}".rstrip(),
            advice=_from_start(
                result, _advice(result, row.step) or _untried(result, row.step, phase) or _remedy(phase, row.subject)
            ),
        )


_WHY = {
    "data": "The batch itself contains NaN or infinity: no precision helps.",
    "weights": "The weights were not finite before the step.",
    "forward": "Everything after it is NaN or infinite, too, and so is the loss.",
    "loss": "The outputs of all layers were finite: the loss function produced it.",
    "backward": "The forward pass was finite; the gradients were not.",
    "update": "The gradients were finite: the optimizer's update made weights NaN or infinite.",
}


def _rehearsed(result: Result, phase: str) -> str:
    """Where a break was seen that has no step of the fit: on new weights, or on a single batch."""
    if phase == "data" and result.get("batches") is not None:
        return "in the batches after the break"
    step = result.get("rehearsed_step")
    return "in this step" if step is None else f"in step {step} of a training from new weights on the next batches"


def _place(phase: str, subject: str, layer: object) -> str:
    if phase == "data":
        return f"in the {subject.removeprefix('batch/')} of the batch"
    if phase == "update":
        return "in the update of the weights"
    if phase == "weights":
        return f"in the weights of '{subject}'"
    if phase == "loss" or subject == "loss":
        return "in the loss" if phase == "loss" else "in the gradient of the loss"
    pass_, _, side = phase.partition(", ")
    if side:
        return f"in the {pass_} pass, in an operation {side.removesuffix(' it')} '{subject}'"
    return f"in the {pass_} pass of '{subject}'" + (f" ({layer})" if layer else "")


def _tried(result: Result, step: int | None) -> str:
    """What repeating the step in other precisions, and in other ways, has shown."""
    causes = [CAUSES[str(row.value)][0] for row in _rows_of(result, "cause", step) if row.value in CAUSES]
    if _rows_of(result, "breaks_in_float32", step):
        causes.insert(0, "The same step breaks in float32, too: precision is not the cause.")
    if layers := _cured_layers(result, step):
        causes.append(f"With {', '.join(map(repr, layers))} in float32, the same step is finite.")
    for row in _rows_of(result, "cured_by_rate", step):
        causes.append(f"With {float(row.value or 0):g} of the learning rate the same batches train: it is too high.")
    if tried := [str(row.value) for row in _rows_of(result, "tried", step)]:
        causes.append(f"Tried: {'; '.join(tried)}.")
    return "".join(f" {cause}" for cause in causes)


def _rows_of(result: Result, metric: str, step: int | None) -> list[Measurement]:
    return [row for row in result.select(metric) if row.step == step]


def _advice(result: Result, step: int | None) -> str:
    """The code of what has cured the step; empty where nothing has."""
    if layers := _cured_layers(result, step):
        return in_float32(*layers)
    for row in _rows_of(result, "cured_by_rate", step):
        return slower(float(row.value or 0))
    return next((CAUSES[str(row.value)][1] for row in _rows_of(result, "cause", step) if row.value in CAUSES), "")


def _untried(result: Result, step: int | None, phase: str) -> str:
    """Why there is no code, where trials have cured nothing."""
    tried = [row for row in _rows_of(result, "tried", step) if "time limit" not in str(row.value)]
    if phase != "data" and (tried or _rows_of(result, "breaks_in_float32", step)):
        return "# No trial has cured it: look at the code of this layer or loss, for a division, a root or a logarithm of 0"
    return ""


def _from_start(result: Result, advice: str) -> str:
    """The code on new weights, where those of the run are lost."""
    is_due = result.select("non_finite_weights") and NEW_WEIGHTS not in advice and not advice.startswith("#")
    return f"{NEW_WEIGHTS}\n{advice}" if is_due else advice


def _cured_layers(result: Result, step: int | None) -> list[str]:
    return [row.subject for row in result.select("cured_in") if row.step == step]


def _remedy(phase: str, subject: str) -> str:
    if phase == "data":
        return FINITE_DATA
    if phase in ("update", "weights"):
        return slower(0.1)
    if subject == "loss" or phase == "loss":
        return _HEAD
    return in_float32(subject)


_HEAD = (
    "plan = kp.plan_of(model).with_layers({list(kp.layer_paths(model))[-1]: 'float32'})\n"
    "model = kp.apply_plan(model, plan)  # and compute the loss from logits: from_logits=True"
)


def _starves(result: Result) -> bool:
    """Whether whole epochs had no update: then their breaks are not those by which loss scaling adjusts its scale."""
    return bool(result.select("no_updates"))


def _has_loss_scaling(result: Result) -> bool:
    return result.get("loss_scale") is not None or bool(result.get("skipped_steps"))


def _overflow(result: Result) -> Iterator[Finding]:
    """Activations beyond the range of float16, in a float16 layer, or in one that could be in float16."""
    # After the first non-finite layer, all are non-finite; if its origin is known, _origin reports it.
    rows = () if result.select("first_non_finite") else result.select("activation_non_finite")
    first_non_finite = next((row.subject for row in rows if row.value), None)
    for path, row in _largest(result, "activation_float16_overflow").items():
        if _is_excluded(result.plan, path):
            continue
        in_half = _in_float16(result.plan, path)
        size = _size(result, path, "activation")
        if row.value and float(row.value) > 0:
            yield Finding(
                code="float16-overflow" if in_half else "float16-overflow-ahead",
                severity="error" if in_half else "warning",
                subject=path,
                message=(
                    f"The outputs of '{path}' are values up to {_number(size)}; {_share(row.value)} of them exceed the largest number "
                    f"of float16, {_FLOAT16_MAX:.0f}, and {'are' if in_half else 'would be'} infinite in float16."
                ),
                advice=in_float32(path),
            )
        elif in_half and path == first_non_finite:
            yield Finding(
                code="float16-overflow",
                severity="error",
                subject=path,
                message=f"'{path}' computes in float16, and {_share(_non_finite_share(result, path))} of its outputs are NaN or infinite.",
                advice=in_float32(path),
            )


def _non_finite_share(result: Result, path: str) -> float:
    return max((float(row.value or 0) for row in result.select("activation_non_finite", path)), default=0.0)


def _underflow(result: Result) -> Iterator[Finding]:
    """Gradients that float16 flushes to 0, and the one loss scale that would preserve those of all layers.

    Layers for which Keras's initial loss scale suffices are one finding.
    """
    shares = {
        path: share
        for path in _largest(result, "gradient_float16_underflow")
        if not _is_excluded(result.plan, path) and (share := _lost_share(result, path, "float16")) >= _MIN_UNDERFLOW
    }
    fixed = [path for path in shares if _lost_share(result, path, "scaled") < _MIN_UNDERFLOW]
    if fixed:
        worst = max(fixed, key=lambda path: shares[path])
        yield _underflow_finding(result, worst, shares[worst], [path for path in fixed if path != worst])
    for path in shares:
        if path not in fixed:
            yield _underflow_finding(result, path, shares[path])


def _underflow_finding(result: Result, path: str, share: float, others: Sequence[str] = ()) -> Finding:
    remaining = max(_lost_share(result, name, "scaled") for name in (path, *others))
    is_fixed, scale = remaining < _MIN_UNDERFLOW, _loss_scale(result)
    names = ", ".join(map(repr, others[:_MAX_NAMED])) + (", ..." if len(others) > _MAX_NAMED else "")
    likewise = f" ({len(others)} other layer{'s' * (len(others) > 1)} likewise: {names})" if others else ""
    has_weights = bool(result.select("weight_gradient_maximum", path))
    learning = "its weights stop learning" if has_weights else "the layers before it stop learning"
    return Finding(
        code="gradient-underflow",
        severity="info" if is_fixed else "warning",
        subject=path,
        message=(
            f"{_share(share)} of the gradients at '{path}' are not 0 and become 0 in float16, where {learning}{likewise}; with "
            f"Keras's initial loss scale of 2**15, {_share(remaining)}{' at most' if others else ''} still do. The gradients of all "
            f"layers are at most {_number(_largest_gradient(result))}: a scale of {_number(scale)} makes use of float16's range."
        ),
        advice=(
            with_loss_scaling(initial_scale=_number(scale))
            if is_fixed or scale > INITIAL_LOSS_SCALE
            else in_policy("mixed_bfloat16")
        ),
    )


def _lost_share(result: Result, path: str, metric: str) -> float:
    """Return the share of a layer's gradients, or of those of its weights, that ``float16`` or ``scaled`` float16 loses."""
    tensors = ("gradient", "weight_gradient")
    rows = [row for tensor in tensors for row in result.select(f"{tensor}_{metric}_underflow", path)]
    return max((float(row.value or 0) for row in rows), default=0.0)


def _largest_gradient(result: Result) -> float:
    """Return the largest gradient of the layers that are, or could be, in float16."""
    paths = [path for path in _largest(result, "gradient_maximum") if not _is_excluded(result.plan, path)]
    return max(
        (_size(result, path, tensor) for path in paths for tensor in ("gradient", "weight_gradient")), default=0.0
    )


def _loss_scale(result: Result) -> float:
    """Return the loss scale that suits the gradients of all layers."""
    return _fitting_scale(_largest_gradient(result))


def _fitting_scale(size: float) -> float:
    """The largest power of two, up to 2**24, that keeps gradients of a size well within the range of float16."""
    room = _FLOAT16_MAX / 4 / size if size > 0 else math.inf
    return 2.0 ** (24 if not 0 < room < 2.0**24 else math.floor(math.log2(room)))


def _vanished(result: Result) -> Iterator[Finding]:
    """The last float16 layer whose gradients are all 0, followed by a layer with gradients too small for float16."""
    next_path, loss_scale = "", float(result.get("loss_scale") or 1.0)
    for path, row in reversed(_largest(result, "gradient_zero").items()):
        size = _size(result, next_path, "gradient")
        if float(row.value or 0) < 1:
            next_path = path
        elif next_path and 0 < size * loss_scale < _FLOAT16_MIN_NORMAL and _in_float16(result.plan, path):
            scale = _loss_scale(result)
            is_sufficient = size * scale >= _FLOAT16_MIN_NORMAL
            yield Finding(
                code="gradient-vanished",
                severity="warning",
                subject=path,
                message=(
                    f"All gradients at '{path}' are 0 in float16: those from the next layer, '{next_path}', are at most "
                    f"{_number(size)}, and the smallest positive number of float16 is 6e-8. Its weights do not learn."
                ),
                advice=(
                    with_loss_scaling(initial_scale=_number(scale))
                    if is_sufficient
                    else f"{in_policy('mixed_bfloat16')}  # or a loss function with larger values"
                ),
            )
            return
        else:
            return


def _dead(result: Result) -> Iterator[Finding]:
    """Layers whose outputs are 0 for the whole batch."""
    for path, row in _largest(result, "activation_zero").items():
        share = float(row.value or 0)
        if share >= _DEAD:
            yield Finding(
                code="dead-units",
                severity="warning",
                subject=path,
                message=f"{_share(share)} of the outputs of '{path}' are 0: almost no signal passes, forward or backward.",
                advice="# A lower learning rate, another initializer, or keras.layers.LeakyReLU",
            )


def _largest(result: Result, metric: str) -> dict[str, Measurement]:
    """Return the row with the largest value of a metric by layer."""
    largest: dict[str, Measurement] = {}
    for row in result.select(metric):
        if row.value is not None and (
            row.subject not in largest or float(row.value) > float(largest[row.subject].value or 0)
        ):
            largest[row.subject] = row
    return largest


def _size(result: Result, path: str, tensor: str) -> float:
    """Return the largest absolute value of a layer's ``activation``, ``gradient`` or ``weight_gradient``."""
    values = [
        abs(float(row.value))
        for end in ("minimum", "maximum")
        for row in result.select(f"{tensor}_{end}", path)
        if row.value is not None
    ]
    return max(values, default=0.0)


def _in_float16(plan: PrecisionPlan | None, path: str) -> bool:
    return plan is not None and plan.precision_of(path) == "mixed_float16"


def _is_excluded(plan: PrecisionPlan | None, path: str) -> bool:
    """Whether a plan with lower precisions has the layer in another format: the range of float16 is then no problem."""
    return (
        plan is not None
        and plan.precision_of(path) != "mixed_float16"
        and {plan.default, *plan.layers.values()} != {"float32"}
    )


def _share(value: object) -> str:
    share = float(value)  # type: ignore[arg-type]
    return f"{share:.0%}" if share >= 0.01 else f"{share:.2g}"


def _number(value: object) -> str:
    number = float(value)  # type: ignore[arg-type]
    power = math.log2(number) if number > 0 else 0.5
    return f"2.0**{int(power)}" if power.is_integer() and power > 8 else f"{number:.4g}"


LAYER_RULES: tuple[Rule, ...] = (_origin, _overflow, _underflow, _vanished, _dead)
"""Rules for the layer statistics of ``kp.NumericsProbe`` and ``kp.diagnose``."""
