"""judged: what rules conclude from results, whatever these hold."""

from collections.abc import Sequence
from dataclasses import replace

from keras_precision.findings import Finding, training_findings
from keras_precision.result import Result

__all__ = ["judged"]

_ORDER = {"error": 0, "warning": 1, "info": 2}


def judged(results: Sequence[Result], findings: Sequence[Finding] = ()) -> tuple[Finding, ...]:
    """Return findings about results, the worst first.

    Args:
        results: The results; the rules look at training runs.
        findings: Others to put among them.

    Returns:
        Each finding once.

    Example:
        >>> from keras_precision.result import Measurement
        >>> [finding.code for finding in judged([Result("run", (Measurement("fit", "loss_scale", 0.0, step=9),))])]
        ['loss-scale-collapsed']
    """
    own = [finding for result in results for finding in _of(result)]
    return tuple(sorted(dict.fromkeys([*findings, *own]), key=lambda finding: _ORDER[finding.severity]))


def _of(result: Result) -> tuple[Finding, ...]:
    """The rules are given the numbers of the run alone: a file may hold anything."""
    rows = tuple(row for row in result if row.subject in ("fit", "epoch", "step") and not isinstance(row.value, str))
    return training_findings(replace(result, measurements=rows)) if any(row.subject == "fit" for row in rows) else ()
