"""``keras-precision report``."""

import argparse

from keras_precision.cli.verb import Answer, Verb

__all__ = ["VERB"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", metavar="PATH", help="files and folders that results were saved to")
    parser.add_argument(
        "-o", "--output", default="report.html", metavar="FILE", help="where the page goes (%(default)s)"
    )
    parser.add_argument("--title", default="Precision report", metavar="TEXT", help="the heading of the page")
    parser.add_argument(
        "--format", choices=("html", "markdown", "text"), default="html", help="write the page (html), or print tables"
    )


def _run(options: argparse.Namespace) -> Answer:
    import warnings

    import keras_precision as kp
    from keras_precision.report.findings import judged
    from keras_precision.report.loading import gather

    gathered = gather(options.results)
    findings = judged(gathered.results)
    missing = [f"Left out: {problem}" for problem in gathered.problems]
    if options.format != "html":
        return Answer("\n\n".join([kp.render(gathered.results, options.format), *missing]), findings=findings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kp.PrecisionWarning)  # the page says it, and so do the lines below
        path = kp.save_report(options.results, options.output, title=options.title)
    count = len(gathered.results)
    wrote = f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB): {count} result{'s' if count > 1 else ''}."
    told = [f"{each.severity.capitalize()}: {each.subject}: {each.message}" for each in findings]
    return Answer("\n".join([wrote, *missing, *told]), findings=findings)


VERB = Verb(
    name="report",
    help="write saved results as one HTML page",
    description="Writes saved results as one HTML page with tables, charts and findings, which needs no network. "
    "A folder is read with all those below it; a damaged file is named and left out.",
    examples=("report results/ -o report.html", "report old.json new.json --format markdown"),
    arguments=_arguments,
    run=_run,
    json=False,
)
