"""``keras-precision diagnose``."""

import argparse
from dataclasses import asdict
from pathlib import Path

from keras_precision.cli.command import Command, CommandOutput
from keras_precision.cli.data import add_data, read_data
from keras_precision.findings.finding import Finding

__all__ = ["COMMAND", "findings_output"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="results (.json), the baseline first; or a model")
    add_data(parser, "--data", labels=True, required=False, help="samples and labels for a model")
    parser.add_argument("--loss", metavar="NAME", help="the loss whose gradients are checked, with --data (none)")
    parser.add_argument("--unsafe", action="store_true", help="run Python code in the model file (Lambda)")


def _run(options: argparse.Namespace) -> CommandOutput:
    import keras_precision as kp

    if all(Path(file).suffix == ".json" for file in options.files):
        return findings_output(kp.diagnose([kp.Result.load(file) for file in options.files]))
    if len(options.files) > 1:
        raise kp.PrecisionError(
            f"Expected one model, or results. Received: {', '.join(options.files)}. Pass one of them."
        )
    model = kp.load_model(options.files[0], unsafe=options.unsafe)
    if options.data is None:
        return findings_output(kp.diagnose(model))
    x, y = read_data(options.data, options.x, options.y if options.loss else None)
    if options.loss:
        model.compile("sgd", loss=options.loss)
    return findings_output(kp.diagnose(model, (x, y) if options.loss else x))


def findings_output(findings: tuple[Finding, ...]) -> CommandOutput:
    """Return the output for findings: paragraphs as text, a list as JSON."""
    lines = [
        f"{finding.severity.capitalize()} {finding.code}: {finding.message}\n    {finding.advice}"
        for finding in findings
    ]
    return CommandOutput("\n".join(lines) or "No findings.", [asdict(finding) for finding in findings], findings)


COMMAND = Command(
    name="diagnose",
    help="find numerical problems of a run or a model, with remedies",
    description="Diagnoses saved results of the profiler, or a model, on samples or by its graph alone. The exit code is 1 "
    "if a finding is an error.",
    examples=(
        "diagnose float32.json float16.json",
        "diagnose model.keras --data train.npz --loss mse",
    ),
    arguments=_arguments,
    run=_run,
)
