"""``keras-precision explain``."""

import argparse

from keras_precision.cli.command import Command, CommandOutput
from keras_precision.cli.data import add_data, read_data

__all__ = ["COMMAND"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the exported .keras, .h5 or .hdf5 file")
    parser.add_argument("file", metavar="FILE", help="the .tflite file")
    add_data(parser, "--data", labels=True, required=True, help="the samples and labels for evaluation")
    parser.add_argument("--calibration", metavar="FILE", help="calibration samples: an .npz file with the same names")
    parser.add_argument(
        "--recover",
        type=float,
        default=0.75,
        metavar="SHARE",
        help="share of the changed predictions to recover (0.75)",
    )
    parser.add_argument("--keep", default="float32", metavar="NAME", help="what layers are kept in (float32)")
    parser.add_argument("-o", "--output", metavar="FILE", help="the JSON file for the plan that recovers accuracy")
    parser.add_argument("--unsafe", action="store_true", help="run Python code in the model file (Lambda)")


def _run(options: argparse.Namespace) -> CommandOutput:
    import keras_precision as kp
    from keras_precision.core.system.files import check_destination
    from keras_precision.findings.quantization_rules import drop_findings, quantization_findings

    if options.output:
        check_destination(options.output)
    x, y = read_data(options.data, options.x, options.y)
    calibration = read_data(options.calibration, options.x, None)[0] if options.calibration else None
    result = kp.explain_drop(
        kp.load_model(options.model, unsafe=options.unsafe),
        options.file,
        x,
        y,
        calibration,
        win_back=options.recover,
        keep=options.keep,
    )
    if options.output and result.plan is not None:
        result.plan.save(options.output)
    return CommandOutput.of(result, kp.render(result), (*quantization_findings(result), *drop_findings(result)))


COMMAND = Command(
    name="explain",
    help="where a quantized file loses accuracy, and which layers are most sensitive",
    description="Compares a quantized file with its float model: changed predictions and accuracy drop per class; the most "
    "sensitive layers, with only one layer quantized or in float; and the plan that recovers accuracy, with its cost.",
    examples=(
        "explain model.keras model.tflite --data test.npz",
        "explain model.keras model.tflite --data test.npz --calibration calib.npz --keep int16x8 -o plan.json",
    ),
    arguments=_arguments,
    run=_run,
)
