"""Finding: a problem that a rule has detected; a rule is a pure function from a result to findings."""

import ast
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from keras_precision.core.errors import InputError
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
        advice: The remedy, as Python for a place where ``model``, its data ``x`` and ``y``, ``kp``, ``keras`` and ``np`` are
            known; it assigns what it makes to these names, or to ``profiler``. Comments alone say why there is no such code.
    """

    code: str
    severity: Severity
    subject: str
    message: str
    advice: str

    @property
    def has_code(self) -> bool:
        """Whether the advice is more than a comment."""
        return bool(ast.parse(self.advice).body)

    def apply(self, model: Any, *data: Any) -> Any:
        """Run the advice.

        Args:
            model: The model that the finding is about.
            *data: Its inputs, and its labels, for advice that adapts layers to them or leaves samples out.

        Returns:
            The model that the advice made, or changed; with data, a tuple of it and of the data that the advice leaves.

        Raises:
            InputError: The advice has no code.

        Example:
            >>> finding = Finding("half-output", "warning", "head", "", "model = model.layers[0]")
            >>> finding.apply(model).name == model.layers[0].name
            True
        """
        if not self.has_code:
            raise InputError(
                f"Expected advice that is code. Received: {self.advice!r} of '{self.code}'. Follow it by hand."
            )
        frameworks = (base.__module__.partition(".")[0] for base in type(model).__mro__)
        keras = sys.modules[next((name for name in frameworks if name in ("keras", "tf_keras")), "keras")]
        # The names that advice may use; the package itself was imported before any finding was made.
        names = {"model": model, **dict(zip(("x", "y"), data, strict=False))}
        names |= {"np": np, "keras": keras, "kp": sys.modules[__name__.partition(".")[0]]}
        exec(compile(self.advice, f"<advice of {self.code}>", "exec"), names)  # noqa: S102 - written by a rule, which quotes all names
        return (names["model"], *(names[name] for name in ("x", "y")[: len(data)])) if data else names["model"]


Rule = Callable[[Result], Iterator[Finding]]
"""A function that detects one kind of problem in a result."""


def apply_rules(result: Result, rules: Iterable[Rule]) -> tuple[Finding, ...]:
    """Apply rules to a result, and return the findings by severity."""
    return by_severity(finding for rule in rules for finding in rule(result))


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings sorted by severity, the most severe first; the sort is stable."""
    return tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity]))
