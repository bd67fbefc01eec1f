"""``keras-precision search``."""

import argparse
from pathlib import Path
from typing import Any

from keras_precision.cli.data import add_data, read_data
from keras_precision.cli.named import WHERE, is_named, modules_importable
from keras_precision.cli.verb import Answer, Verb
from keras_precision.experiments.task import found

__all__ = ["VERB"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="FILE", help="a .keras, .h5 or .hdf5 file")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the .tflite file to write")
    parser.add_argument("--plan", metavar="FILE", help="where the best plan is written, as JSON")
    add_data(
        parser,
        "--data",
        labels=True,
        required=True,
        help="samples to choose the ranges of activations from, and to judge plans on where --validation is not given "
        f"(module:function: what that returns, samples or samples and labels; {WHERE})",
    )
    parser.add_argument(
        "--validation", metavar="FILE", help="samples and labels to judge plans on, with the same names"
    )
    parser.add_argument("--samples", type=int, default=256, metavar="N", help="calibrate on the first N samples (256)")
    parser.add_argument(
        "--choices", nargs="+", metavar="NAME", help="precisions to choose from (int8 int4 int16x8 float32)"
    )
    parser.add_argument("--max-metric-drop", type=float, metavar="X", help="how much of the metric may be lost")
    parser.add_argument("--max-size", type=float, metavar="BYTES", help="how large the file may be")
    parser.add_argument("--max-latency", type=float, metavar="MS", help="how long a call may take on this machine")
    parser.add_argument(
        "--max-divergence", type=float, metavar="X", help="how far answers may be from the float model's"
    )
    parser.add_argument(
        "--objective", metavar="NAME", help="what is made as good as possible (follows from the limits)"
    )
    parser.add_argument("--metric", default="accuracy", metavar="NAME", help="a metric of Keras (accuracy)")
    parser.add_argument("--project", metavar="FOLDER", help="keep the trials there, and go on with them another time")
    parser.add_argument("--max-trials", type=int, metavar="N", help="plans to run at most")
    parser.add_argument("--unsafe", action="store_true", help="run Python code that the model file carries (Lambda)")


def _run(options: argparse.Namespace) -> Answer:
    import tempfile

    import keras_precision as kp
    from keras_precision.report.tables.pareto_front import front_text
    from keras_precision.search.objective.score import score_of

    budget = kp.Budget(options.max_size, options.max_metric_drop, options.max_latency, options.max_divergence)
    labelled = budget.max_metric_drop is not None or options.objective not in (
        None,
        "size_bytes",
        "divergence",
        "front",
    )
    x, y = _data(options.data, options.x, options.y if labelled and not options.validation else None)
    held = _data(options.validation, options.x, options.y if labelled else None) if options.validation else (x, y)
    model = kp.load_model(options.model, unsafe=options.unsafe)
    metric = score_of(model, options.metric, compiled=False) if labelled else None
    with tempfile.TemporaryDirectory() as passing:
        folder = Path(options.project or Path(passing) / "search")
        tuner = kp.PrecisionTuner(
            model,
            tuple(each[: options.samples] for each in x) if isinstance(x, tuple) else x[: options.samples],
            held if labelled else held[0],
            options.choices,
            budget=budget,
            objective=metric.name if metric is not None and options.objective == options.metric else options.objective,
            metric=metric,
            max_trials=options.max_trials,
            directory=folder.parent,
            project_name=folder.name,
        )
        tuner.search()
        written = tuner.export_best(options.output)
        if options.plan:
            tuner.best_plan.save(options.plan)
        gap = "" if tuner.gap is None else f"\nGap: {tuner.gap:.1%}."
        text = f"{front_text(tuner.pareto_front())}\n\n{kp.render(written)}\nPlans run: {len(tuner.results())}.{gap}"
    return Answer.of(written, text)


def _data(source: str, x: list[str], y: list[str] | None) -> tuple[Any, Any]:
    """Samples and labels from a file, or from a function that is named."""
    if not is_named(source):
        return read_data(source, x, y)
    with modules_importable(source):
        data = found(source)()
    return data if isinstance(data, tuple) and len(data) == 2 else (data, None)


VERB = Verb(
    name="search",
    help="find the best precision for each layer, and write the file",
    description="Chooses a precision for each layer of a model within a budget, from files that are made and run, and "
    "writes the best one as a .tflite file.",
    examples=(
        "search model.keras --data train.npz --validation test.npz --max-metric-drop 0.005 -o best.tflite --plan best.json",
        "search model.keras --data my_data:load --max-size 50000 -o best.tflite",
    ),
    arguments=_arguments,
    run=_run,
)
