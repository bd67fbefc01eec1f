"""save_report: results as one file to send to a colleague."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from keras_precision.core.errors import PrecisionWarning
from keras_precision.core.system.files import check_destination, write_whole
from keras_precision.findings.finding import Finding
from keras_precision.report.by_machine import by_host
from keras_precision.report.html_page import page
from keras_precision.report.loading import Source, gather

__all__ = ["save_report"]


def save_report(
    results: Source | Sequence[Source],
    path: str | os.PathLike[str] = "report.html",
    *,
    findings: Sequence[Finding] = (),
    title: str = "Precision report",
) -> Path:
    """Write a report: one HTML file with tables, charts and findings, which needs no network.

    Args:
        results: What verbs returned, files that they were saved to, or folders of such files.
        path: Where the report goes, ending in ``.html``; its folder must exist.
        findings: Findings to show beside those that rules make from the results themselves.
        title: The heading of the report.

    Returns:
        The path.

    Raises:
        InputError: There is no result.
        FileFormatError: A file that was named, or every file of a folder, is damaged.
        DestinationError: The path cannot be written.
        MissingExtraError: plotly or Jinja is not installed.

    Warns:
        PrecisionWarning: Files of a folder could not be read, or results come from different machines. The
            report says so, too.

    Example:
        >>> from keras_precision.core.result import Measurement, Result
        >>> runs = [Result(name, [Measurement("fit", "step_time_ms", time)]) for name, time in (("a", 2.0), ("b", 1.0))]
        >>> save_report(runs, "report.html").stat().st_size < 6_000_000
        True
    """
    destination = check_destination(path, suffix=".html")
    gathered = gather(results)
    content = page(gathered, findings, title=title)
    for problem in gathered.problems:
        warnings.warn(f"Left out of the report: {problem}", PrecisionWarning, stacklevel=2)
    hosts = by_host(gathered.results)
    if len(hosts) > 1:
        names = "; ".join(host.name for host in hosts)
        warnings.warn(
            f"These results come from {len(hosts)} machines, which the report keeps apart: {names}.",
            PrecisionWarning,
            stacklevel=2,
        )
    return write_whole(destination, content)
