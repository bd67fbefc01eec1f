"""judged: what rules conclude from results, whatever these hold."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from keras_precision.core.result import Measurement, Result
from keras_precision.findings.finding import Finding, in_order, judge
from keras_precision.findings.layer_rules import LAYER_RULES
from keras_precision.findings.loss_scale_rules import training_findings
from keras_precision.findings.run_rules import run_findings

__all__ = ["judged"]

_OF_A_LAYER = ("activation_", "gradient_", "weight_gradient_", "first_non_finite")


def judged(results: Sequence[Result], findings: Sequence[Finding] = ()) -> tuple[Finding, ...]:
    """Return findings about results, the worst first.

    Args:
        results: The results; the rules look at training runs, the first of which is the baseline of the others.
        findings: Others to put among them.

    Returns:
        Each finding once; what is about a layer names the run as well.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> [finding.code for finding in judged([Result("run", (Measurement("fit", "loss_scale", 0.0, step=9),))])]
        ['loss-scale-collapsed']
    """
    own = [_own(result) for result in results]
    found = [finding for result, mine in zip(results, own, strict=True) for finding in _of(result, mine)]
    runs = [mine for mine in own if mine.select("step_time_ms", "step")]
    return in_order(dict.fromkeys([*findings, *found, *(run_findings(runs) if len(runs) > 1 else ())]))


def _own(result: Result) -> Result:
    """The numbers of a training run alone: a file may hold anything, and rules expect what is theirs."""
    rows = tuple(row for row in result if row.subject in ("fit", "epoch", "step") and not isinstance(row.value, str))
    return replace(result, measurements=rows)


def _of(result: Result, own: Result) -> Iterator[Finding]:
    layers = tuple(row for row in result if row.metric.startswith(_OF_A_LAYER) and _fits(row))
    if any(row.subject == "fit" for row in own):
        yield from training_findings(own)
    for finding in judge(own.with_measurements(layers), LAYER_RULES) if layers else ():
        yield replace(finding, subject=f"{result.name}: {finding.subject}")


def _fits(row: Measurement) -> bool:
    words = ("first_non_finite", "first_non_finite_layer", "first_non_finite_loss")
    return row.metric in words or isinstance(row.value, int | float)
