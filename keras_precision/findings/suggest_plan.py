"""suggest_plan: a plan from findings."""

from collections.abc import Iterable

from keras_precision.core.errors import InputError
from keras_precision.core.plan import PrecisionPlan, training_plan
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
"""Codes of the findings that float32 in the layer resolves."""


def suggest_plan(findings: Iterable[Finding], start: PrecisionPlan | str = "mixed_float16") -> PrecisionPlan:
    """Return a plan with float32 for the layers in which findings report a problem that float32 resolves.

    Findings of severity ``info`` change nothing. A layer whose gradients become 0 in float16 with any loss scale
    needs the range of bfloat16, and gets float32, which includes it.

    Args:
        findings: Findings of ``kp.diagnose``, ``kp.lint``, or a profiler.
        start: The plan to start from; the name of a policy means a plan with this policy for all layers.

    Returns:
        The plan, with reasons for its changes.

    Raises:
        InputError: An element of ``findings`` is not a ``kp.Finding``.
        PlanKindError: ``start`` is a deployment plan.
        UnknownPrecisionError: ``start`` is not the name of a policy.

    Example:
        >>> finding = Finding("float16-overflow-ahead", "warning", "logits", "Values up to 1e6.", "")
        >>> plan = suggest_plan([finding])
        >>> plan.default, dict(plan.layers), dict(plan.reasons)
        ('mixed_float16', {'logits': 'float32'}, {'logits': 'float16-overflow-ahead: Values up to 1e6.'})
    """
    plan = training_plan(start)
    findings = list(findings)
    for finding in findings:
        if not isinstance(finding, Finding):
            raise InputError(
                f"Expected findings, as kp.diagnose returns them. Received: {finding!r}. Pass kp.diagnose(...)."
            )
    raised = {
        finding.subject: f"{finding.code}: {finding.message}"
        for finding in reversed(findings)  # The most severe comes first, so that its reason is the one in the plan.
        if finding.severity != "info" and finding.code in {*_RAISE, "gradient-underflow"} and _is_layer(finding)
    }
    return plan.with_layers(dict.fromkeys(raised, "float32"), raised)


def _is_layer(finding: Finding) -> bool:
    return finding.subject not in ("loss", "fit") and not finding.subject.startswith("batch/")
