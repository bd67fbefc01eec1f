"""Results as text for a terminal."""

import io
import sys
from collections.abc import Sequence

from rich.console import Console

from keras_precision.core.result import Result
from keras_precision.core.table import Table
from keras_precision.findings.finding import Finding
from keras_precision.report.tables.runs import formatted, run_table

__all__ = ["draw", "show", "summary"]

_WIDTH = 118


def draw(table: Table, *, width: int = _WIDTH) -> str:
    """Return a table as text.

    Args:
        table: The table.
        width: Columns of the terminal.

    Returns:
        Lines without colours, so that they can go to a file.

    Example:
        >>> "Run" in draw(Table("Training", ("Run",), (("float32",),)))
        True
    """
    paper = io.StringIO()
    console = Console(
        file=paper, width=width, force_terminal=False, color_system=None, highlight=False, markup=False, emoji=False
    )
    console.print(table)
    return paper.getvalue().rstrip()


def summary(result: Result, findings: Sequence[Finding] = ()) -> str:
    """Return the summary of one training run.

    Args:
        result: The result of a ``PrecisionProfiler``.
        findings: What rules concluded from it.

    Returns:
        A few lines of text.
    """
    lines = [draw(run_table([result]))]
    overhead = result.get("profiler_us_per_step")
    if overhead is not None:
        lines.append(f"Profiler: {formatted('profiler_us_per_step', overhead)} a step.")
    lines += [f"Note: {note}" for note in result.notes]
    for finding in findings:
        lines += [f"{finding.severity.capitalize()}: {finding.message}", f"    {finding.advice}"]
    return "\n".join(lines)


def show(text: str) -> None:
    """Print, where there is a place to print to, in the characters that it has.

    Args:
        text: What to print.
    """
    stream = sys.stdout
    if stream is not None:  # it is None under pythonw, and in some services
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
