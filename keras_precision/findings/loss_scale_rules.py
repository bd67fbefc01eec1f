"""Rules for training runs: loss scale, skipped steps, and waiting for data."""

from collections.abc import Iterator
from dataclasses import dataclass

from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.findings.advice import SCALED_WHERE_DUE, in_policy, with_loss_scaling
from keras_precision.findings.finding import Finding, Rule, apply_rules
from keras_precision.findings.health_rules import HEALTH_RULES

__all__ = ["loss_scale_findings", "training_findings"]

# 2**-14 is the smallest normal number of float16: a scale below it makes gradients smaller instead of larger.
_TINY_SCALE = 2.0**-14
# Products of gradients with a scale above this do not fit float16 (largest number 65504) unless they
# are below 0.004: a run that computes in float16 does not get there.
_HUGE_SCALE = 2.0**24
# If a step waits for 30 % of its time, no precision can save more than the other 70 %; without the wait it
# would be 1.4 times as fast. Waits under 1 ms occur in any Python loop over arrays in memory, and
# matter only for steps so short that no pipeline would help. In the first steps, queues are still full.
_ADJUSTING = 24  # steps in which a first scale of up to 2**24 falls to 1
_MIN_WAIT_SHARE, _MIN_WAIT_MS, _MIN_STEPS = 0.3, 1.0, 10


def loss_scale_findings(result: Result) -> tuple[Finding, ...]:
    """Return the findings on the loss scaling of a result of ``PrecisionProfiler``, by severity.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> run = Result("run", (Measurement("fit", "loss_scale", 0.0, step=200),))
        >>> [finding.code for finding in loss_scale_findings(run)]
        ['loss-scale-collapsed']
    """
    return apply_rules(result, _LOSS_SCALE_RULES)


def training_findings(result: Result) -> tuple[Finding, ...]:
    """Return the findings on health, loss scaling and data loading of a result of ``PrecisionProfiler``, by severity.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> figures = {"data_wait_ms": 9.0, "data_wait_share": 0.45, "steps_measured": 100}
        >>> run = Result("run", tuple(Measurement("fit", name, value) for name, value in figures.items()))
        >>> [finding.code for finding in training_findings(run)]
        ['input-bound']
    """
    return apply_rules(result, (*HEALTH_RULES, *_LOSS_SCALE_RULES, _input_bound))


def _collapsed(result: Result) -> Iterator[Finding]:
    """A scale below 1 at which steps are still skipped; where updates are applied, large losses need such a scale."""
    scale, late = _scale(result), _late(result)
    if scale is None or not scale < 1 or (scale > 0 and late is not None and late.are_applied):
        return
    is_unusable = scale < _TINY_SCALE or late is not None
    effect = (
        "The next step without overflow divides 0 by 0 and turns every weight into NaN."
        if scale == 0
        else "Gradients are no longer scaled out of the range in which float16 flushes them to 0."
    )
    yield Finding(
        code="loss-scale-collapsed",
        severity="error" if is_unusable else "warning",
        subject=result.name,
        message=f"The loss scale fell to {scale:.3g}: steps overflowed repeatedly, and Keras 3 has no lower bound. {effect}",
        advice=f"{with_loss_scaling(min_scale='1.0')}  # and look for the overflow: inputs, learning rate, a layer in 16 bits",
    )


def _infinite(result: Result) -> Iterator[Finding]:
    scale = _scale(result)
    if scale == float("inf"):
        yield Finding(
            code="loss-scale-infinite",
            severity="error",
            subject=result.name,
            message="The loss scale is infinite: every step is skipped from now on, while the loss still looks normal.",
            advice=with_loss_scaling(max_scale="2.0**24"),
        )


def _stuck(result: Result) -> Iterator[Finding]:
    """Steps are skipped at a scale that no longer falls: at the lower bound of ``kp.LossScaleOptimizer``, or that of tf_keras, 1."""
    scale, late = _scale(result), _late(result)
    if scale is None or not 1 <= scale < float("inf") or late is None or late.are_applied:
        return
    if scale != 1 and not late.same_scale:
        return
    yield Finding(
        code="loss-scale-stuck",
        severity="error",
        subject=result.name,
        message=(
            f"The loss scale is at its lower bound of {scale:.5g}, and {late.skipped} of the last {late.steps} steps were skipped: "
            "the bound is too high, or no scale helps."
        ),
        advice=in_policy("mixed_bfloat16"),
    )


def _missing(result: Result) -> Iterator[Finding]:
    # Keras's rule is that of auto_scale_loss: https://github.com/keras-team/keras/blob/v3.15.1/keras/src/trainers/trainer.py
    plan = result.plan
    if plan is None or not _computes_in_float16(plan) or not result.select("loss_scale") or _scale(result) is not None:
        return
    yield Finding(
        code="loss-scale-missing",
        severity="warning",
        subject=result.name,
        message=(
            "Layers compute in float16, but the optimizer scales no loss, so that small gradients become 0. Keras adds "
            "scaling only if the model's own policy is mixed_float16 when it is compiled: not for policies of single "
            "layers, not for a DTypePolicyMap, not for a model that was loaded under another global policy."
        ),
        advice=SCALED_WHERE_DUE,
    )


def _idle(result: Result) -> Iterator[Finding]:
    scale, plan = _scale(result), result.plan
    if scale is None or scale == float("inf"):
        return
    if (plan is not None and not _computes_in_float16(plan)) or scale > _HUGE_SCALE:
        why = "no layer computes in float16" if scale <= _HUGE_SCALE else f"it grew to {scale:.3g} without an overflow"
        yield Finding(
            code="loss-scale-idle",
            severity="warning",
            subject=result.name,
            message=f"The optimizer scales the loss, but {why}: the scale has no benefit here, and grows until it is infinite.",
            advice=SCALED_WHERE_DUE if scale <= _HUGE_SCALE else with_loss_scaling(max_scale="2.0**24"),
        )


def _input_bound(result: Result) -> Iterator[Finding]:
    """The trainer waits for data; no finding if the wait is unknown."""
    share, wait, steps = (result.get(name) for name in ("data_wait_share", "data_wait_ms", "steps_measured"))
    if share is None or wait is None or (steps or 0) < _MIN_STEPS:
        return
    if share >= _MIN_WAIT_SHARE and wait >= _MIN_WAIT_MS:
        yield Finding(
            code="input-bound",
            severity="warning",
            subject=result.name,
            message=(
                f"Training waited for data during {100 * share:.0f} % of the time, {wait:.3g} ms a step: even if "
                f"everything else took no time, it could not be more than {1 / share:.1f} times as fast."
            ),
            advice=(
                "# Code of yours loads the data: dataset.map(prepare, num_parallel_calls=tf.data.AUTOTUNE).cache().prefetch("
                "tf.data.AUTOTUNE), keras.utils.PyDataset(workers=8, use_multiprocessing=True), torch DataLoader(num_workers=8)"
            ),
        )


_LOSS_SCALE_RULES: tuple[Rule, ...] = (_collapsed, _infinite, _stuck, _missing, _idle)


@dataclass(frozen=True)
class _Late:
    """The steps since the end of the last epoch but one; in a run of one epoch, without those in which the scale adjusts."""

    steps: int
    skipped: int
    same_scale: bool

    @property
    def are_applied(self) -> bool:
        """Whether most of these steps have updated the weights."""
        return self.skipped <= self.steps / 2


def _late(result: Result) -> _Late | None:
    """The last steps, and how many of them were skipped; None where that is unknown."""
    batches, scales = result.series("loss_scale", "fit")
    skipped = result.series("skipped_steps", "fit")[1]
    if not skipped or skipped[-1] is None or len(skipped) != len(scales):
        return None
    if len(skipped) > 1:
        steps, late = batches[-1] - batches[-2], skipped[-1] - (skipped[-2] or 0)
        return _Late(steps, late, scales[-1] == scales[-2])
    adjusting = min(skipped[-1], _ADJUSTING)
    steps = batches[-1] - adjusting
    return _Late(steps, skipped[-1] - adjusting, same_scale=False) if steps else None


def _scale(result: Result) -> float | None:
    scale = result.get("loss_scale")
    return None if scale is None else float(scale)


def _computes_in_float16(plan: PrecisionPlan) -> bool:
    return "mixed_float16" in (plan.default, *plan.layers.values())
