"""``keras-precision explain``."""

import argparse

from keras_precision.cli.data import add_data, read_data
from keras_precision.cli.verb import Answer, Verb

__all__ = ["VERB"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the .keras, .h5 or .hdf5 file that was exported")
    parser.add_argument("file", metavar="FILE", help="the .tflite file")
    add_data(parser, "--data", labels=True, required=True, help="the samples and labels to judge it on")
    parser.add_argument(
        "--calibration", metavar="FILE", help="samples that ranges are chosen from: an .npz file with the same names"
    )
    parser.add_argument(
        "--recover", type=float, default=0.75, metavar="SHARE", help="of the changed predictions (0.75)"
    )
    parser.add_argument("--keep", default="float32", metavar="NAME", help="what layers are kept in (float32)")
    parser.add_argument("-o", "--output", metavar="FILE", help="where the plan that wins them back goes, as JSON")
    parser.add_argument("--unsafe", action="store_true", help="run Python code that the model file carries (Lambda)")


def _run(options: argparse.Namespace) -> Answer:
    import keras_precision as kp
    from keras_precision.core.system.files import check_destination
    from keras_precision.findings.quantization_rules import drop_findings

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
    return Answer.of(result, kp.render(result), drop_findings(result))


VERB = Verb(
    name="explain",
    help="whom a quantized file hurts, and which layers are to blame",
    description="Runs a quantized file beside its float model: which answers changed, by class; which layers are to "
    "blame, each lowered and each kept alone; and the plan that wins the answers back, with its cost.",
    examples=(
        "explain model.keras model.tflite --data test.npz",
        "explain model.keras model.tflite --data test.npz --calibration calib.npz --keep int16x8 -o plan.json",
    ),
    arguments=_arguments,
    run=_run,
)
