"""What the figures of layers say: where values broke, what float16 would lose, what training does to them."""

import math
from collections.abc import Iterator

from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.findings.finding import Finding, Rule, Severity

__all__ = ["LAYER_RULES"]

_FLOAT16_LARGEST = 65504.0
_FLOAT16_NORMAL = 2.0**-14  # smaller numbers lose bits, and vanish in the end
# Of the gradients that are not 0, a tenth that vanishes is felt in training; below that, weights still follow.
_FELT = 0.1
# A layer of which all but one in a hundred outputs are 0, on a whole batch, passes almost nothing on.
_DEAD = 0.99


def _origin(result: Result) -> Iterator[Finding]:
    """Where the first value that is not finite arose."""
    for row in result.select("first_non_finite"):
        facts = {
            each.metric: each.value
            for each in result
            if each.step == row.step and each.subject == row.subject and each.metric.startswith("first_non_finite_")
        }
        phase, layer = str(row.value), facts.get("first_non_finite_layer")
        if phase == "not found again":
            continue
        harmless = facts.get("first_non_finite_loss") == "finite" and _scales(result)
        where = f"in step {row.step}" if row.step is not None else "in this step"
        low, high = facts.get("first_non_finite_from"), facts.get("first_non_finite_to")
        went_in = f" What went in lay between {_number(low)} and {_number(high)}." if low is not None else ""
        severity: Severity = "info" if harmless else "error"
        why = (
            "The step was skipped, and its loss was finite: this is how dynamic loss scaling finds its scale."
            if harmless
            else _WHY.get(phase.partition(",")[0], "")
        )
        yield Finding(
            code="non-finite" if not harmless else "non-finite-harmless",
            severity=severity,
            subject=row.subject,
            message=f"The first value that is not finite arose {where} {_place(phase, row.subject, layer)}.{went_in} {why}".rstrip(),
            advice=_remedy(phase, row.subject),
        )


_WHY = {
    "data": "The batch itself holds NaN or infinity: no precision helps.",
    "weights": "The weights were not finite before the step.",
    "forward": "Everything behind it is NaN or infinite, too, and so is the loss.",
    "loss": "Every layer put out finite values: the loss function made it.",
    "backward": "The forward pass was finite; the gradients were not.",
}


def _place(phase: str, subject: str, layer: object) -> str:
    if phase == "data":
        return f"in the {subject.removeprefix('batch/')} of the batch"
    if phase == "weights":
        return f"in the weights of '{subject}'"
    if phase == "loss" or subject == "loss":
        return "in the loss" if phase == "loss" else "in the gradient of the loss"
    pass_, _, side = phase.partition(", ")
    if side:
        return f"in the {pass_} pass, in an operation {side.removesuffix(' it')} '{subject}'"
    return f"in the {pass_} pass of '{subject}'" + (f" ({layer})" if layer else "")


def _remedy(phase: str, subject: str) -> str:
    if phase == "data":
        return "assert np.isfinite(x).all() and np.isfinite(y).all()  # before fit"
    if phase == "weights":
        return "keras.callbacks.BackupAndRestore, or kp.PrecisionScheduler({}, on_instability='raise_precision')"
    if subject == "loss" or phase == "loss":
        return "Keep the last layer in float32 and the loss from logits: Dense(n, dtype='float32'), from_logits=True"
    return f"plan = kp.PrecisionPlan.training('mixed_float16', layers={{'{subject}': 'float32'}}); kp.apply_plan(model, plan)"


def _scales(result: Result) -> bool:
    return result.get("loss_scale") is not None or bool(result.get("skipped_steps"))


def _overflow(result: Result) -> Iterator[Finding]:
    """Activations beyond what float16 holds: there already, or if the layer were in float16."""
    # Behind the first layer that is not finite, none is; where the origin was looked for, that is told already.
    rows = () if result.select("first_non_finite") else result.select("activation_non_finite")
    broken = next((row.subject for row in rows if row.value), None)
    for path, row in _widest(result, "activation_float16_overflow").items():
        if _is_kept_high(result.plan, path):
            continue
        in_half = _in_float16(result.plan, path)
        size = _size(result, path, "activation")
        if row.value and float(row.value) > 0:
            yield Finding(
                code="float16-overflow" if in_half else "float16-overflow-ahead",
                severity="error" if in_half else "warning",
                subject=path,
                message=(
                    f"'{path}' puts out values up to {_number(size)}, and {_share(row.value)} of them are beyond the largest number "
                    f"of float16, {_FLOAT16_LARGEST:.0f}: there, they {'are' if in_half else 'would be'} infinite."
                ),
                advice=f"kp.PrecisionPlan.training('mixed_float16', layers={{'{path}': 'float32'}}), or 'mixed_bfloat16' for all",
            )
        elif in_half and path == broken:
            yield Finding(
                code="float16-overflow",
                severity="error",
                subject=path,
                message=f"'{path}' computes in float16, and {_share(_lost(result, path))} of what it puts out is NaN or infinite.",
                advice=f"kp.PrecisionPlan.training('mixed_float16', layers={{'{path}': 'float32'}})",
            )


def _lost(result: Result, path: str) -> float:
    return max((float(row.value or 0) for row in result.select("activation_non_finite", path)), default=0.0)


def _underflow(result: Result) -> Iterator[Finding]:
    """Gradients that float16 flushes to 0, and the loss scale that would lift them."""
    for path, row in _widest(result, "gradient_float16_underflow").items():
        if _is_kept_high(result.plan, path):
            continue
        share = float(row.value or 0)
        weights = max(
            (float(each.value or 0) for each in result.select("weight_gradient_float16_underflow", path)), default=0.0
        )
        share = max(share, weights)
        if share < _FELT:
            continue
        size = max(_size(result, path, "gradient"), _size(result, path, "weight_gradient"))
        scale = 2.0 ** min(24, math.floor(math.log2(_FLOAT16_LARGEST / 4 / size))) if size > 0 else 2.0**24
        left = max(
            (
                float(each.value or 0)
                for what in ("gradient", "weight_gradient")
                for each in result.select(f"{what}_scaled_underflow", path)
            ),
            default=0.0,
        )
        cured = left < _FELT
        rest = f"with the loss scale of 2**15 that Keras starts with, {_share(left)} still do"
        yield Finding(
            code="gradient-underflow",
            severity="info" if cured else "warning",
            subject=path,
            message=(
                f"{_share(share)} of the gradients at '{path}' are not 0 and become 0 in float16, where its weights stop learning; "
                f"{rest}. They are at most {_number(size)}: a scale of {_number(scale)} lifts them as far as float16 goes."
            ),
            advice=(
                f"model.compile(kp.LossScaleOptimizer(optimizer, initial_scale={_number(scale)}), ...)"
                if cured or scale > 2.0**15
                else f"kp.PrecisionPlan.training('mixed_bfloat16'), or layers={{'{path}': 'float32'}}"
            ),
        )


def _vanished(result: Result) -> Iterator[Finding]:
    """Going back from the loss: the first layer in float16 whose gradients are all 0, behind ones too small for float16."""
    behind, held = "", float(result.get("loss_scale") or 1.0)
    for path, row in reversed(_widest(result, "gradient_zero").items()):
        size = _size(result, behind, "gradient")
        if float(row.value or 0) < 1:
            behind = path
        elif behind and 0 < size * held < _FLOAT16_NORMAL and _in_float16(result.plan, path):
            scale = 2.0 ** min(24, math.floor(math.log2(_FLOAT16_LARGEST / 4 / size)))
            cures = size * scale >= _FLOAT16_NORMAL
            yield Finding(
                code="gradient-vanished",
                severity="warning",
                subject=path,
                message=(
                    f"All gradients at '{path}' are 0 in float16: those that come back from '{behind}' are at most "
                    f"{_number(size)}, and float16 holds nothing below 6e-8. Its weights do not learn."
                ),
                advice=(
                    f"model.compile(kp.LossScaleOptimizer(optimizer, initial_scale={_number(scale)}), ...)"
                    if cures
                    else "kp.PrecisionPlan.training('mixed_bfloat16'), or a loss that is not so small"
                ),
            )
            return
        else:
            return


def _dead(result: Result) -> Iterator[Finding]:
    """Units that put out 0 for the whole batch."""
    for path, row in _widest(result, "activation_zero").items():
        share = float(row.value or 0)
        if share >= _DEAD:
            yield Finding(
                code="dead-units",
                severity="warning",
                subject=path,
                message=f"{_share(share)} of what '{path}' puts out is 0: almost nothing passes, forward or backward.",
                advice="A lower learning rate, another initializer, or keras.layers.LeakyReLU",
            )


def _widest(result: Result, metric: str) -> dict[str, Measurement]:
    """For each layer, the row with the largest value of a metric."""
    found: dict[str, Measurement] = {}
    for row in result.select(metric):
        if row.value is not None and (
            row.subject not in found or float(row.value) > float(found[row.subject].value or 0)
        ):
            found[row.subject] = row
    return found


def _size(result: Result, path: str, what: str) -> float:
    values = [
        abs(float(row.value))
        for end in ("minimum", "maximum")
        for row in result.select(f"{what}_{end}", path)
        if row.value is not None
    ]
    return max(values, default=0.0)


def _in_float16(plan: PrecisionPlan | None, path: str) -> bool:
    return plan is not None and plan.precision_of(path) == "mixed_float16"


def _is_kept_high(plan: PrecisionPlan | None, path: str) -> bool:
    """Whether a layer is in float32 in a plan that lowers others: somebody has decided that already."""
    return (
        plan is not None
        and plan.precision_of(path) == "float32"
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
"""Rules over the rows that a NumericsProbe, or kp.diagnose, makes of each layer."""
