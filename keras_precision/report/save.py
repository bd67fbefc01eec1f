"""Reports as one HTML file."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from keras_precision.core.errors import PrecisionWarning
from keras_precision.core.system.files import check_destination, write_atomic
from keras_precision.findings.finding import Finding
from keras_precision.report.by_machine import by_host
from keras_precision.report.html_page import page
from keras_precision.report.loading import Source, collect_results

__all__ = ["save_report"]


def save_report(
    results: Source | Sequence[Source],
    path: str | os.PathLike[str] = "report.html",
    *,
    findings: Sequence[Finding] = (),
    title: str = "Precision report",
) -> Path:
    """Write a report: one HTML file with tables, charts and findings, which works offline.

    Args:
        results: Results and comparisons, saved files of them, or folders of such files.
        path: The file, ending in ``.html``; its folder must exist.
        findings: Findings to show in addition to those about the results themselves.
        title: The heading of the report.

    Returns:
        The path.

    Raises:
        InputError: There is no result.
        FileFormatError: A file, or every file of a folder, is damaged.
        DestinationError: The path cannot be written.
        MissingExtraError: plotly or Jinja is not installed.

    Warns:
        PrecisionWarning: Files of a folder could not be read, or results are of different machines; the report also
            says so.

    Example:
        >>> from keras_precision.core.result import Measurement, Result
        >>> runs = [Result(name, [Measurement("fit", "step_time_ms", time)]) for name, time in (("a", 2.0), ("b", 1.0))]
        >>> save_report(runs, "report.html").stat().st_size < 6_000_000
        True
    """
    destination = check_destination(path, suffix=".html")
    inputs = collect_results(results)
    content = page(inputs, findings, title=title)
    for problem in inputs.problems:
        warnings.warn(f"Left out of the report: {problem}", PrecisionWarning, stacklevel=2)
    hosts = by_host(inputs.results)
    if len(hosts) > 1:
        names = "; ".join(host.name for host in hosts)
        warnings.warn(
            f"These results come from {len(hosts)} machines, which the report shows separately: {names}.",
            PrecisionWarning,
            stacklevel=2,
        )
    return write_atomic(destination, content)
