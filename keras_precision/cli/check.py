"""``keras-precision check``."""

import argparse
from dataclasses import asdict

from keras_precision.cli.verb import Answer, Verb
from keras_precision.findings.finding import Finding

__all__ = ["VERB"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD", help="a saved result that is good enough; or a comparison, alone")
    parser.add_argument("new", metavar="NEW", nargs="?", help="the saved result to judge")
    parser.add_argument("--max-drop", type=float, metavar="X", help="how much worse the metric may be: 0.005")
    parser.add_argument("--metric", metavar="NAME", help="what --max-drop is about (accuracy, or val_accuracy)")
    parser.add_argument("--max-slowdown", type=float, metavar="X", help="times as long a step or a call may take: 1.05")
    parser.add_argument(
        "--max-growth", type=float, metavar="X", help="times as large the file or the memory may be: 1.1"
    )
    parser.add_argument(
        "--allow-not-shown", action="store_true", help="let through what these data can neither show nor rule out"
    )


def _run(options: argparse.Namespace) -> Answer:
    from keras_precision.comparison.regression_gate import check_results
    from keras_precision.core.errors import InputError
    from keras_precision.report.loading import gather

    found = gather([path for path in (options.old, options.new) if path is not None]).results
    if len(found) < 2 or (options.new is not None and len(found) != 2):
        raise InputError(
            f"Expected two results, or one comparison. Received: {len(found)} result{'s' if len(found) > 1 else ''}."
        )
    limits = {name: getattr(options, name) for name in ("max_drop", "max_slowdown", "max_growth", "metric")}
    lines, findings, told = [], [], []
    for new in found[1:]:
        for check in check_results(found[0], new, **limits):
            told.append({"run": new.name, **asdict(check)})
            lines.append(f"{check.verdict.upper():>9}  {new.name}: {check.message}")
            if check.verdict == "failed" or (check.verdict == "inconclusive" and not options.allow_not_shown):
                advice = "keras-precision report OLD NEW shows both runs"
                findings.append(Finding(f"check-{check.metric}", "error", new.name, check.message, advice))
    return Answer("\n".join(lines), told, tuple(findings))


VERB = Verb(
    name="check",
    help="fail where a new result is worse than an old one",
    description="Holds a new result against an old one, for continuous integration: exit code 0 where a loss beyond the "
    "limits can be ruled out, 1 where it cannot. The limits are tested for non-inferiority, at 5 percent, and are no raw "
    "thresholds: what the data can neither show nor rule out is 'not shown', and fails unless --allow-not-shown is given.",
    examples=(
        "check old.json new.json --max-drop 0.005 --max-slowdown 1.05",
        "check comparison.json --max-slowdown 1.05 --max-growth 1.0",
    ),
    arguments=_arguments,
    run=_run,
)
