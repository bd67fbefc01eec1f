"""Finding: what a rule concludes from results; a rule is one small pure function."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from keras_precision.core.result import Result

__all__ = ["Finding", "Rule", "Severity", "in_order", "judge"]

Severity = Literal["error", "warning", "info"]
_ORDER = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Finding:
    """What a rule concludes.

    Attributes:
        code: A short name that stays the same from version to version.
        severity: ``"error"`` (the run is worthless), ``"warning"`` (it is at risk) or ``"info"``.
        subject: What it is about: a run, a layer.
        message: What was seen, with the numbers, and why it matters.
        advice: What to do, as code.
    """

    code: str
    severity: Severity
    subject: str
    message: str
    advice: str


Rule = Callable[[Result], Iterator[Finding]]
"""One thing that can be wrong: a function from a result to findings."""


def judge(result: Result, rules: Iterable[Rule]) -> tuple[Finding, ...]:
    """Apply rules to a result.

    Args:
        result: The result.
        rules: Functions from a result to findings.

    Returns:
        The findings, ordered by severity.
    """
    return in_order(finding for rule in rules for finding in rule(result))


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings ordered by severity, the worst first.

    Args:
        findings: The findings.

    Returns:
        The same, those of one severity as they were.
    """
    return tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity]))
