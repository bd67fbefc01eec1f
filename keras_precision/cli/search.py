"""``keras-precision search``."""

import argparse
from pathlib import Path
from typing import Any

from keras_precision.cli.command import Command, CommandOutput
from keras_precision.cli.data import add_data, first_samples, read_data
from keras_precision.cli.module_function import IMPORT_LOCATION, is_module_function, modules_importable
from keras_precision.experiments.task import import_function

__all__ = ["COMMAND"]

_WITHOUT_LABELS = (None, "size_bytes", "divergence", "front")  # objectives that need no labels


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="FILE", help="a .keras, .h5 or .hdf5 file")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the .tflite file to write")
    parser.add_argument("--plan", metavar="FILE", help="the JSON file for the best plan")
    add_data(
        parser,
        "--data",
        labels=True,
        required=True,
        help="calibration samples, on which plans are also evaluated without --validation "
        f"(or module:function that returns samples, or samples and labels; {IMPORT_LOCATION})",
    )
    parser.add_argument("--validation", metavar="FILE", help="samples and labels for evaluation, with the same names")
    parser.add_argument("--samples", type=int, default=256, metavar="N", help="calibrate on the first N samples (256)")
    parser.add_argument("--choices", nargs="+", metavar="NAME", help="candidate precisions (int8 int4 int16x8 float32)")
    parser.add_argument("--max-metric-drop", type=float, metavar="X", help="acceptable loss of the metric")
    parser.add_argument("--max-size", type=float, metavar="BYTES", help="maximum file size")
    parser.add_argument("--max-latency", type=float, metavar="MS", help="maximum latency of a call on this machine")
    parser.add_argument("--max-divergence", type=float, metavar="X", help="maximum divergence from the float model")
    parser.add_argument("--objective", metavar="NAME", help="what to optimize (derived from the limits)")
    parser.add_argument("--metric", default="accuracy", metavar="NAME", help="a Keras metric (accuracy)")
    parser.add_argument("--project", metavar="FOLDER", help="folder of trials, from which a later search resumes")
    parser.add_argument("--max-trials", type=int, metavar="N", help="maximum number of trials")
    parser.add_argument("--unsafe", action="store_true", help="run Python code in the model file (Lambda)")


def _run(options: argparse.Namespace) -> CommandOutput:
    import tempfile

    import keras_precision as kp
    from keras_precision.report.tables.pareto_front import front_text
    from keras_precision.search.objective.score import score_of

    budget = kp.Budget(options.max_size, options.max_metric_drop, options.max_latency, options.max_divergence)
    labelled = budget.max_metric_drop is not None or options.objective not in _WITHOUT_LABELS
    x, y = _data(options.data, options.x, options.y if labelled and not options.validation else None)
    validation_data = (x, y)
    if options.validation:
        validation_data = _data(options.validation, options.x, options.y if labelled else None)
    model = kp.load_model(options.model, unsafe=options.unsafe)
    metric = score_of(model, options.metric, compiled=False) if labelled else None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.project or Path(temporary) / "search")
        tuner = kp.PrecisionTuner(
            model,
            first_samples(x, options.samples),
            validation_data if labelled else validation_data[0],
            options.choices,
            budget=budget,
            objective=metric.name if metric is not None and options.objective == options.metric else options.objective,
            metric=metric,
            max_trials=options.max_trials,
            directory=folder.parent,
            project_name=folder.name,
        )
        tuner.search()
        result = tuner.export_best(options.output)
        if options.plan:
            tuner.best_plan.save(options.plan)
        gap = "" if tuner.gap is None else f"\nGap: {tuner.gap:.1%}."
        text = f"{front_text(tuner.pareto_front())}\n\n{kp.render(result)}\nPlans run: {len(tuner.results())}.{gap}"
    return CommandOutput.of(result, text)


def _data(source: str, x: list[str], y: list[str] | None) -> tuple[Any, Any]:
    """Return samples and labels from a file or a ``module:function``."""
    if not is_module_function(source):
        return read_data(source, x, y)
    with modules_importable(source):
        data = import_function(source)()
    return data if isinstance(data, tuple) and len(data) == 2 else (data, None)


COMMAND = Command(
    name="search",
    help="find the best precision per layer, and export the file",
    description="Selects a precision for every layer of a model within a budget, by exporting and running candidates, and "
    "writes the best one as a .tflite file.",
    examples=(
        "search model.keras --data train.npz --validation test.npz --max-metric-drop 0.005 -o best.tflite --plan best.json",
        "search model.keras --data my_data:load --max-size 50000 -o best.tflite",
    ),
    arguments=_arguments,
    run=_run,
)
