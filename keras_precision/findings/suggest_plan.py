"""suggest_plan: a plan from findings."""

from collections.abc import Iterable

from keras_precision.core.errors import InputError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.findings.finding import Finding

__all__ = ["suggest_plan"]

_RAISE = {
    "non-finite",
    "float16-overflow",
    "float16-overflow-ahead",
    "half-softmax",
    "half-output",
    "tiny-epsilon",
    "variance-explodes",
    "variance-collapses",
    "unshifted-exp",
    "half-reduction",
    "half-variance",
    "zero-epsilon",
    "infinite-constant",
    "log-of-softmax",
}
"""Codes of what goes away where the layer computes in float32."""


def suggest_plan(findings: Iterable[Finding], start: PrecisionPlan | str = "mixed_float16") -> PrecisionPlan:
    """Return a plan that keeps the layers in float32 that findings lay something at the door of.

    Findings of severity ``info`` change nothing. Gradients that a loss scale cannot lift out of the range that
    float16 flushes to 0 put the layer into bfloat16's range, that is: float32.

    Args:
        findings: Of ``kp.diagnose``, ``kp.lint``, or a profiler.
        start: The plan that one would like; the name of a policy stands for the plan of that alone.

    Returns:
        The plan, with the reasons of what it changes.

    Raises:
        InputError: ``findings`` holds something else.
        PlanKindError: ``start`` is a deployment plan.
        UnknownPrecisionError: ``start`` is the name of no policy.

    Example:
        >>> found = Finding("float16-overflow-ahead", "warning", "logits", "Values up to 1e6.", "")
        >>> plan = suggest_plan([found])
        >>> plan.default, dict(plan.layers), dict(plan.reasons)
        ('mixed_float16', {'logits': 'float32'}, {'logits': 'float16-overflow-ahead: Values up to 1e6.'})
    """
    plan = PrecisionPlan.training(start) if isinstance(start, str) else start.expect("training")
    given = list(findings)
    for finding in given:
        if not isinstance(finding, Finding):
            raise InputError(f"Expected findings, as kp.diagnose gives them. Received: {finding!r}.")
    raised = {
        finding.subject: f"{finding.code}: {finding.message}"
        for finding in reversed(given)  # the worst comes first, and is the reason that stays
        if finding.severity != "info" and finding.code in {*_RAISE, "gradient-underflow"} and _is_layer(finding)
    }
    return plan.with_layers(dict.fromkeys(raised, "float32"), raised)


def _is_layer(finding: Finding) -> bool:
    return finding.subject not in ("loss", "fit") and not finding.subject.startswith("batch/")
