"""Finding: a problem that a rule has detected; a rule is a pure function from a result to findings."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from keras_precision.core.result import Result

__all__ = ["Finding", "Rule", "Severity", "apply_rules", "by_severity"]

Severity = Literal["error", "warning", "info"]
_ORDER = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Finding:
    """A problem that a rule has detected.

    Attributes:
        code: A short name that is stable between versions.
        severity: ``"error"`` (the run is unusable), ``"warning"`` (it is at risk) or ``"info"``.
        subject: The name of the run, the layer or the group of samples.
        message: What was observed, with numbers, and why it matters.
        advice: The remedy, as code.
    """

    code: str
    severity: Severity
    subject: str
    message: str
    advice: str


Rule = Callable[[Result], Iterator[Finding]]
"""A function that detects one kind of problem in a result."""


def apply_rules(result: Result, rules: Iterable[Rule]) -> tuple[Finding, ...]:
    """Apply rules to a result, and return the findings by severity."""
    return by_severity(finding for rule in rules for finding in rule(result))


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings sorted by severity, the most severe first; the sort is stable."""
    return tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity]))
