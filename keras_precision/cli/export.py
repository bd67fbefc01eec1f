"""``keras-precision export``."""

import argparse
from pathlib import Path
from typing import Any

from keras_precision.cli.data import add_data, read_data
from keras_precision.cli.verb import Answer, Verb
from keras_precision.core.errors import InputError

__all__ = ["VERB"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="FILE", help="a .keras, .h5 or .hdf5 file")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--format",
        choices=("tflite", "onnx", "openvino", "coreml"),
        help="its format (what its name ends in: .tflite, .onnx, .xml, .mlpackage)",
    )
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument("--precision", default="int8", metavar="NAME", help="the precision of every layer (int8)")
    wanted.add_argument("--plan", metavar="FILE", help="a plan that kp.PrecisionPlan.save wrote")
    add_data(parser, "--data", labels=True, required=False, help="samples to choose the ranges of activations from")
    parser.add_argument("--samples", type=int, metavar="N", help="use the first N of them (all)")
    parser.add_argument("--calibration", default="auto", metavar="METHOD", help="how ranges are chosen (auto)")
    parser.add_argument("--runtime", default="litert", metavar="NAME", help="what the file is to run on (litert)")
    parser.add_argument("--io", metavar="TYPE", help="element type of inputs and outputs (that of the activations)")
    either: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": None}
    told = "take the mean error of rounded weights out of the biases of a .tflite file (yes)"
    parser.add_argument("--bias-correction", help=told, **either)
    told = "scale channels between the layers of a .tflite file, for weights that reach unevenly (no)"
    parser.add_argument("--cross-layer-equalization", help=told, **either)
    parser.add_argument("--weights", metavar="WAY", help="of int8 in Core ML: linear steps, or palettized (linear)")
    parser.add_argument(
        "--validation", metavar="FILE", help="samples and labels to score the file on: an .npz file with the same names"
    )
    parser.add_argument("--strict", action="store_true", help="refuse a file in which any operator stayed in float")
    parser.add_argument("--no-overwrite", action="store_true", help="refuse to replace a file")
    parser.add_argument("--unsafe", action="store_true", help="run Python code that the model file carries (Lambda)")


def _run(options: argparse.Namespace) -> Answer:
    import keras_precision as kp

    plan = kp.PrecisionPlan.load(options.plan) if options.plan else options.precision
    samples = None
    if options.data:
        x, _ = read_data(options.data, options.x, None)
        samples = tuple(each[: options.samples] for each in x) if isinstance(x, tuple) else x[: options.samples]
    held_out = read_data(options.validation, options.x, options.y) if options.validation else None
    form = options.format or _FORMATS.get(Path(options.output).suffix, "tflite")
    if options.weights and form != "coreml":
        raise InputError(f"Expected --weights with Core ML's format alone. Received: it with {form}. Leave it out.")
    choices = {name: getattr(options, name) for name in _OF_TFLITE if getattr(options, name) is not None}
    if form != "tflite":
        if choices:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in choices)
            raise InputError(
                f"Expected {named} with TensorFlow Lite's format alone. Received: it with {form}. Leave it out."
            )
        result = _elsewhere(form, options, plan, samples, held_out)
        return Answer.of(result, kp.render(result) + "".join(f"\nNote: {note}" for note in result.notes))
    result = kp.export_tflite(
        kp.load_model(options.model, unsafe=options.unsafe),
        options.output,
        plan,
        samples,
        calibration=options.calibration,
        runtime=options.runtime,
        io=options.io,
        validation_data=held_out,
        strict=options.strict,
        overwrite=not options.no_overwrite,
        **choices,
    )
    notes = "".join(f"\nNote: {note}" for note in result.notes)
    return Answer.of(result, kp.render(result) + notes)


_OF_TFLITE = ("bias_correction", "cross_layer_equalization")
_FORMATS = {".onnx": "onnx", ".xml": "openvino", ".mlpackage": "coreml"}


def _elsewhere(form: str, options: argparse.Namespace, plan: Any, samples: Any, held_out: Any) -> Any:
    """Write a file of another toolchain than TensorFlow Lite."""
    import keras_precision as kp

    model = kp.load_model(options.model, unsafe=options.unsafe)
    common = {"strict": options.strict, "overwrite": not options.no_overwrite}
    if form == "coreml":
        return kp.export_coreml(model, options.output, plan, weights=options.weights or "linear", **common)
    export = kp.export_onnx if form == "onnx" else kp.export_openvino
    return export(
        model, options.output, plan, samples, calibration=options.calibration, validation_data=held_out, **common
    )


VERB = Verb(
    name="export",
    help="write a model file as TensorFlow Lite, or for another runtime, and read it back",
    description="Writes a model as a .tflite, .onnx, .xml (OpenVINO) or .mlpackage (Core ML) file, reads it back and runs it, and says what is in it. "
    "Nothing is written unless all checks pass.",
    examples=(
        "export model.keras -o model.tflite --precision int8 --data calib.npz",
        "export model.keras -o model.tflite --plan plan.json --data train.npz --x x_train --samples 500",
        "export model.keras -o model.onnx --precision int8 --data calib.npz",
        "export old.h5 -o model.tflite --precision float16 --validation test.npz --json",
    ),
    arguments=_arguments,
    run=_run,
)
