"""Rules for the health of a run: losses and weights that are not finite, epochs without an update, losses that explode."""

import math
from collections.abc import Iterator, Sequence

from keras_precision.core.result import Result
from keras_precision.findings.advice import WATCH_AGAIN, in_float32, slower
from keras_precision.findings.finding import Finding, Rule

__all__ = ["HEALTH_RULES"]

_EXPLODED = 100.0  # times the loss of the first epoch
_STUCK_EPOCHS, _STUCK = 3, 1e-7  # epochs, and the range of their losses as a share of their size: what float32 resolves


def _not_finite(result: Result) -> Iterator[Finding]:
    """The loss or the weights are not finite, and no rule on layers says where that began."""
    loss, weights = _non_finite_loss(result), bool(result.select("non_finite_weights"))
    if not (loss or weights) or _has_origin(result) or (not weights and _skipped_a_few(result)):
        return
    what = " and ".join([loss] * bool(loss) + ["weights are not finite"] * weights)
    why = (
        f"An update made the weights infinite or NaN: {_suspects(result)}"
        if weights
        else "What arose where is not known."
    )
    tried = result.select("tried")
    why += f" Tried: {tried[-1].value}." if tried else ""
    yield Finding(
        code="non-finite-loss" if loss else "non-finite-weights",
        severity="error",
        subject=result.name,
        message=f"{what[0].upper()}{what[1:]}. {why}",
        advice=WATCH_AGAIN,
    )


def _non_finite_loss(result: Result) -> str:
    """When the loss ceased to be finite, in words; empty if it did not."""
    for row in result.select("non_finite_loss"):
        return f"the loss is {_shown(row.value)} from step {row.step} on"
    for row in result.select("loss", "epoch"):
        if row.value is not None and not math.isfinite(float(row.value)):
            return f"the loss is {_shown(row.value)} in epoch {int(row.step or 0) + 1}"
    return ""


def _skipped_a_few(result: Result) -> bool:
    """Whether loss scaling skipped steps, and most were applied: the mean of the losses is lost, and the training is not."""
    skipped, batches = result.get("skipped_steps"), result.get("batches")
    return bool(skipped and batches) and float(skipped) <= float(batches) / 2


def _shown(value: object) -> str:
    return "NaN" if str(value) == "nan" else "infinite"


def _has_origin(result: Result) -> bool:
    """Whether the layer rules report where a non-finite loss began."""
    starves = bool(result.select("no_updates"))
    steps = {row.step for row in result.select("first_non_finite_loss") if row.value == "not finite" or starves}
    return any(row.step in steps for row in result.select("first_non_finite") if row.value != "not found again")


def _suspects(result: Result) -> str:
    half = result.plan is not None and any("16" in name for name in (result.plan.default, *result.plan.layers.values()))
    causes = "a learning rate that is too high, a logarithm or division of 0 in the loss, or values in the data"
    return f"usual causes are {causes}{', or the range of the 16-bit format' if half else '; no lower precision is in use'}."


def _no_updates(result: Result) -> Iterator[Finding]:
    """Whole epochs without an update, and no layer is known to break."""
    epochs = result.select("no_updates", "epoch")
    if epochs and not _has_origin(result):
        last = epochs[-1]
        yield Finding(
            code="no-updates",
            severity="error",
            subject=result.name,
            message=f"Loss scaling skipped all of the {last.value} steps up to the end of epoch {int(last.step or 0) + 1}: nothing was learned in them.",
            advice=WATCH_AGAIN,
        )


def _explodes(result: Result) -> Iterator[Finding]:
    losses = _losses(result)
    if len(losses) > 1 and losses[-1] == max(losses) and losses[-1] > _EXPLODED * abs(losses[0]) > 0:
        yield Finding(
            code="loss-explodes",
            severity="warning",
            subject=result.name,
            message=f"The loss grew from {losses[0]:.3g} in the first epoch to {losses[-1]:.3g} in the last: a learning rate that is too high does this in any precision.",
            advice=slower(0.1),
        )


def _stuck(result: Result) -> Iterator[Finding]:
    losses = _losses(result)
    size = max(map(abs, losses), default=0.0)
    if len(losses) >= _STUCK_EPOCHS and size > 0 and max(losses) - min(losses) <= _STUCK * size:
        yield Finding(
            code="loss-stuck",
            severity="warning",
            subject=result.name,
            message=(
                f"The loss is {losses[-1]:.6g} in each of {len(losses)} epochs: no update reaches it. Weights may be frozen, "
                "updates smaller than the format resolves, or the outputs constant."
            ),
            advice=WATCH_AGAIN,
        )


def _constant(result: Result) -> Iterator[Finding]:
    """The same outputs for every sample, since all samples are the same, or since a layer lets no difference through."""
    for row in result.select("constant_outputs"):
        layers = [cured.subject for cured in result.select("cured_in") if cured.step == row.step]
        in_data = row.subject == "batch/inputs"
        cure = (
            f"With {', '.join(map(repr, layers))} in float32 they differ."
            if layers
            else "No layer in float32 changes it."
        )
        why = (
            "So are its inputs: the data tell nothing apart."
            if in_data
            else f"'{row.subject}' is the first layer in which they are one number. {cure}"
        )
        yield Finding(
            code="constant-outputs",
            severity="error",
            subject=row.subject,
            message=f"The outputs are the same for all {row.value} samples of a batch, and the loss does not fall. {why}",
            advice=in_float32(*layers) if layers else _CONSTANT,
        )


_CONSTANT = "# No precision changes it: look at the data, the initializers, and the activation of this layer"


def _losses(result: Result) -> Sequence[float]:
    """The losses of the epochs; none where one is unknown or not finite."""
    values = [row.value for row in result.select("loss", "epoch")]
    losses = [float(value) for value in values if isinstance(value, float | int)]
    return losses if len(losses) == len(values) and all(map(math.isfinite, losses)) else []


HEALTH_RULES: tuple[Rule, ...] = (_not_finite, _no_updates, _constant, _explodes, _stuck)
"""Rules for a result of ``PrecisionProfiler``."""
