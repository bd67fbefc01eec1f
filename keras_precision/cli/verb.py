"""Verb: one word of the command line; Answer: what it says."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from keras_precision.core.result import Result
from keras_precision.findings.finding import Finding

__all__ = ["Answer", "Verb"]


@dataclass(frozen=True)
class Answer:
    """What a verb says.

    Attributes:
        text: For a person; empty where the verb has printed all that it had to say.
        document: The same as JSON holds it.
        findings: What rules concluded; one of severity error makes the exit code 1.
    """

    text: str = ""
    document: Any = None
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, result: Result, text: str, findings: Sequence[Finding] = ()) -> Self:
        """Return the answer that is a result.

        Args:
            result: The result; as JSON, it is what ``kp.Result.load`` reads.
            text: For a person.
            findings: What rules concluded.

        Returns:
            The answer; the text ends with the findings.
        """
        told = [f"{each.severity.capitalize()}: {each.message}\n    {each.advice}" for each in findings]
        return cls("\n".join([text, *told]), json.loads(result.to_bytes()), tuple(findings))

    @property
    def code(self) -> int:
        """The exit code."""
        return int(any(finding.severity == "error" for finding in self.findings))

    def json(self) -> str:
        """Return the answer as JSON.

        Returns:
            The document; with findings beside it, an object of both.
        """
        if not self.findings:
            return json.dumps(self.document, indent=1)
        return json.dumps({"result": self.document, "findings": [asdict(each) for each in self.findings]}, indent=1)


@dataclass(frozen=True)
class Verb:
    """One word of the command line.

    Attributes:
        name: The word.
        help: What it does, in a line of the list of verbs.
        description: What it does, in its own help.
        examples: Command lines without the program's name.
        arguments: Adds its arguments to a parser.
        run: Does it; imports what it needs when it is called, so that help costs nothing.
        json: Whether its answer can be had as JSON.
    """

    name: str
    help: str
    description: str
    examples: tuple[str, ...]
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Answer]
    json: bool = True
