"""A command of the command line, and its output."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from keras_precision.core.result import Result
from keras_precision.findings.finding import Finding

__all__ = ["Command", "CommandOutput"]


@dataclass(frozen=True)
class CommandOutput:
    """The output of a command.

    Attributes:
        text: Output for a terminal; empty where the command has printed it already.
        document: The same as a JSON document.
        findings: What the rules report; one of severity error makes the exit code 1.
    """

    text: str = ""
    document: Any = None
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, result: Result, text: str, findings: Sequence[Finding] = ()) -> Self:
        """Return the output for a result: as JSON it is what ``kp.Result.load`` reads, and the text ends with findings."""
        lines = [f"{finding.severity.capitalize()}: {finding.message}\n    {finding.advice}" for finding in findings]
        return cls("\n".join([text, *lines]), json.loads(result.to_bytes()), tuple(findings))

    @property
    def code(self) -> int:
        """The exit code."""
        return int(any(finding.severity == "error" for finding in self.findings))

    def json(self) -> str:
        """Return the output as JSON: the document, or an object of document and findings where there are findings."""
        if not self.findings:
            return json.dumps(self.document, indent=1)
        findings = [asdict(finding) for finding in self.findings]
        return json.dumps({"result": self.document, "findings": findings}, indent=1)


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        name: The word that calls it.
        help: One line for the list of commands.
        description: The first paragraph of its own help.
        examples: Command lines without the program's name.
        arguments: Adds its arguments to a parser.
        run: Runs it; it imports what it needs only when called, so that ``--help`` is fast.
        json: Whether it has ``--json``.
    """

    name: str
    help: str
    description: str
    examples: tuple[str, ...]
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], CommandOutput]
    json: bool = True
