"""Findings of the rules about results of any kind."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from keras_precision.core.result import Measurement, Result
from keras_precision.findings.finding import Finding, apply_rules, by_severity
from keras_precision.findings.layer_rules import LAYER_RULES
from keras_precision.findings.loss_scale_rules import training_findings
from keras_precision.findings.run_rules import run_findings

__all__ = ["findings_of"]

_LAYER_METRICS = ("activation_", "gradient_", "weight_gradient_", "first_non_finite")


def findings_of(results: Sequence[Result], findings: Sequence[Finding] = ()) -> tuple[Finding, ...]:
    """Return the distinct findings about results, merged with others, the most severe first.

    The first training run is the baseline of the others. Findings about a layer also name its run.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> [finding.code for finding in findings_of([Result("run", (Measurement("fit", "loss_scale", 0.0, step=9),))])]
        ['loss-scale-collapsed']
    """
    runs = [_training_run(result) for result in results]
    single = [finding for result, run in zip(results, runs, strict=True) for finding in _single_run(result, run)]
    timed = [run for run in runs if run.select("step_time_ms", "step")]
    return by_severity(dict.fromkeys([*findings, *single, *(run_findings(timed) if len(timed) > 1 else ())]))


def _training_run(result: Result) -> Result:
    """Return only the numbers of a training run, because a file may contain anything else, which rules do not expect."""
    rows = tuple(row for row in result if row.subject in ("fit", "epoch", "step") and not isinstance(row.value, str))
    return replace(result, measurements=rows)


def _single_run(result: Result, run: Result) -> Iterator[Finding]:
    layers = tuple(row for row in result if row.metric.startswith(_LAYER_METRICS) and _is_valid(row))
    if any(row.subject == "fit" for row in run):
        yield from training_findings(run)
    for finding in apply_rules(run.with_measurements(layers), LAYER_RULES) if layers else ():
        yield replace(finding, subject=f"{result.name}: {finding.subject}")


def _is_valid(row: Measurement) -> bool:
    texts = ("first_non_finite", "first_non_finite_layer", "first_non_finite_loss")
    return row.metric in texts or isinstance(row.value, int | float)
