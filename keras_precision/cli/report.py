"""``keras-precision report``."""

import argparse

from keras_precision.cli.command import Command, CommandOutput

__all__ = ["COMMAND"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", metavar="PATH", help="saved results, and folders of them")
    parser.add_argument("-o", "--output", default="report.html", metavar="FILE", help="the HTML file (%(default)s)")
    parser.add_argument("--title", default="Precision report", metavar="TEXT", help="the heading of the page")
    parser.add_argument(
        "--format", choices=("html", "markdown", "text"), default="html", help="write a page (html), or print tables"
    )


def _run(options: argparse.Namespace) -> CommandOutput:
    import warnings

    import keras_precision as kp
    from keras_precision.report.findings import findings_of
    from keras_precision.report.loading import collect_results

    inputs = collect_results(options.results)
    findings = findings_of(inputs.results)
    missing = [f"Left out: {problem}" for problem in inputs.problems]
    if options.format != "html":
        return CommandOutput("\n\n".join([kp.render(inputs.results, options.format), *missing]), findings=findings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kp.PrecisionWarning)  # the page and the lines below repeat it
        path = kp.save_report(options.results, options.output, title=options.title)
    count = len(inputs.results)
    summary = f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB): {count} result{'s' if count > 1 else ''}."
    lines = [f"{finding.severity.capitalize()}: {finding.subject}: {finding.message}" for finding in findings]
    return CommandOutput("\n".join([summary, *missing, *lines]), findings=findings)


COMMAND = Command(
    name="report",
    help="write saved results as one HTML page",
    description="Writes saved results as one HTML page with tables, charts and findings, without network access. "
    "Folders are read recursively; damaged files are listed and left out.",
    examples=("report results/ -o report.html", "report old.json new.json --format markdown"),
    arguments=_arguments,
    run=_run,
    json=False,
)
