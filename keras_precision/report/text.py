"""Results as text for a terminal."""

import io
import sys
from collections.abc import Sequence

from rich.console import Console

from keras_precision.core.printable import printable
from keras_precision.core.result import Result
from keras_precision.core.table import Table
from keras_precision.findings.finding import Finding
from keras_precision.report.tables.runs import format_value, run_table

__all__ = ["draw", "show", "summary"]

_WIDTH = 118


def draw(table: Table, *, width: int = _WIDTH) -> str:
    """Return a table as text without colours, so that it can be written to a file; ``width`` is in characters.

    Example:
        >>> "Run" in draw(Table("Training", ("Run",), (("float32",),)))
        True
    """
    buffer = io.StringIO()
    console = Console(
        file=buffer, width=width, force_terminal=False, color_system=None, highlight=False, markup=False, emoji=False
    )
    console.print(table)
    return buffer.getvalue().rstrip()


def summary(result: Result, findings: Sequence[Finding] = ()) -> str:
    """Return the summary of a training run by ``PrecisionProfiler``: what is wrong and its remedy, or that it is healthy, first."""
    lines = [] if findings else ["Healthy: nothing was found that harms this run."]
    for finding in findings:
        lines += [f"{finding.severity.capitalize()}: {finding.message}", f"    {finding.advice}"]
    lines.append(draw(run_table([result])))
    overhead = result.get("profiler_us_per_step")
    if overhead is not None:
        lines.append(f"Profiler: {format_value('profiler_us_per_step', overhead)} per step.")
    lines += [f"Note: {note}" for note in result.notes]
    return "\n".join(lines)


def show(text: str) -> None:
    """Print to standard output if there is one, with "?" for characters that its encoding lacks, and control characters escaped."""
    stream = sys.stdout
    if stream is not None:  # it is None under pythonw, and in some services
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(printable(text).encode(encoding, "replace").decode(encoding) + "\n")
