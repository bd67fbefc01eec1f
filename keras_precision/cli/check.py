"""``keras-precision check``."""

import argparse
from dataclasses import asdict

from keras_precision.cli.command import Command, CommandOutput
from keras_precision.findings.finding import Finding

__all__ = ["COMMAND"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD", help="the saved reference result; or a comparison, without NEW")
    parser.add_argument("new", metavar="NEW", nargs="?", help="the saved result to check")
    parser.add_argument("--max-drop", type=float, metavar="X", help="acceptable loss of the metric: 0.005")
    parser.add_argument(
        "--metric", metavar="NAME", help="the metric that --max-drop limits (accuracy, or val_accuracy)"
    )
    parser.add_argument(
        "--max-slowdown", type=float, metavar="X", help="acceptable ratio of the time of a step or a call: 1.05"
    )
    parser.add_argument(
        "--max-growth", type=float, metavar="X", help="acceptable ratio of file size or peak memory: 1.1"
    )
    parser.add_argument("--allow-not-shown", action="store_true", help="accept checks that are inconclusive")


def _run(options: argparse.Namespace) -> CommandOutput:
    from keras_precision.comparison.regression_gate import check_results
    from keras_precision.core.errors import InputError
    from keras_precision.report.loading import collect_results

    old, *others = collect_results([path for path in (options.old, options.new) if path is not None]).results
    if not others or (options.new is not None and len(others) > 1):
        raise InputError(
            f"Expected two results, or one comparison. Received: {1 + len(others)} result{'s' if others else ''}."
        )
    limits = {name: getattr(options, name) for name in ("max_drop", "max_slowdown", "max_growth", "metric")}
    lines, findings, documents = [], [], []
    for new in others:
        for check in check_results(old, new, **limits):
            documents.append({"run": new.name, **asdict(check)})
            lines.append(f"{check.verdict.upper():>12}  {new.name}: {check.message}")
            if check.verdict == "failed" or (check.verdict == "inconclusive" and not options.allow_not_shown):
                advice = "keras-precision report OLD NEW shows both runs"
                findings.append(Finding(f"check-{check.metric}", "error", new.name, check.message, advice))
    return CommandOutput("\n".join(lines), documents, tuple(findings))


COMMAND = Command(
    name="check",
    help="fail if a new result is worse than an old one",
    description="Compares a new result with an old one, for continuous integration: exit code 0 if a loss beyond the "
    "limits is ruled out, else 1. The limits are non-inferiority tests at 5 percent, not raw thresholds: what the data can "
    "neither show nor rule out is 'inconclusive', and fails without --allow-not-shown.",
    examples=(
        "check old.json new.json --max-drop 0.005 --max-slowdown 1.05",
        "check comparison.json --max-slowdown 1.05 --max-growth 1.0",
    ),
    arguments=_arguments,
    run=_run,
)
