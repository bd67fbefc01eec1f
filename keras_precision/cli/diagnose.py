"""``keras-precision diagnose``."""

import argparse
from dataclasses import asdict
from pathlib import Path

from keras_precision.cli.data import add_data, read_data
from keras_precision.cli.verb import Answer, Verb
from keras_precision.findings.finding import Finding

__all__ = ["VERB", "answer_of"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="results (.json), the baseline first; or a model")
    add_data(parser, "--data", labels=True, required=False, help="samples, and labels, for a model")
    parser.add_argument("--loss", metavar="NAME", help="the loss to take gradients of, with --data (none)")
    parser.add_argument("--unsafe", action="store_true", help="run Python code that the model file carries (Lambda)")


def _run(options: argparse.Namespace) -> Answer:
    import keras_precision as kp

    if all(Path(file).suffix == ".json" for file in options.files):
        return answer_of(kp.diagnose([kp.Result.load(file) for file in options.files]))
    if len(options.files) > 1:
        raise kp.PrecisionError(f"Expected one model, or results. Received: {', '.join(options.files)}.")
    model = kp.load_model(options.files[0], unsafe=options.unsafe)
    if options.data is None:
        return answer_of(kp.diagnose(model))
    x, y = read_data(options.data, options.x, options.y if options.loss else None)
    if options.loss:
        model.compile("sgd", loss=options.loss)
    return answer_of(kp.diagnose(model, (x, y) if options.loss else x))


def answer_of(findings: tuple[Finding, ...]) -> Answer:
    """Return findings as an answer.

    Args:
        findings: The findings.

    Returns:
        The answer: for a person one paragraph each, as JSON a list.
    """
    told = [f"{each.severity.capitalize()} {each.code}: {each.message}\n    {each.advice}" for each in findings]
    return Answer("\n".join(told) or "Nothing was found.", [asdict(each) for each in findings], findings)


VERB = Verb(
    name="diagnose",
    help="say what is wrong in a run or a model, and what to do",
    description="Judges saved results of the profiler, or a model, on samples or by its graph alone. The exit code is 1 "
    "where a finding is an error.",
    examples=(
        "diagnose float32.json float16.json",
        "diagnose model.keras --data train.npz --loss mse",
    ),
    arguments=_arguments,
    run=_run,
)
