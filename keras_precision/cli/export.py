"""``keras-precision export``."""

import argparse
from pathlib import Path
from typing import Any

from keras_precision.cli.command import Command, CommandOutput
from keras_precision.cli.data import add_data, first_samples, read_data
from keras_precision.core.errors import InputError
from keras_precision.core.result import Result
from keras_precision.quantization.weight_rounding import ROUNDINGS

__all__ = ["COMMAND"]

_TFLITE_OPTIONS = ("bias_correction", "rounding", "cross_layer_equalization", "per_channel")
_FORMATS = {".onnx": "onnx", ".xml": "openvino", ".mlpackage": "coreml"}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="FILE", help="a .keras, .h5 or .hdf5 file")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--format",
        choices=("tflite", "onnx", "openvino", "coreml"),
        help="the format (by the suffix: .tflite, .onnx, .xml, .mlpackage)",
    )
    plan = parser.add_mutually_exclusive_group()
    plan.add_argument("--precision", default="int8", metavar="NAME", help="the precision of every layer (int8)")
    plan.add_argument("--plan", metavar="FILE", help="a plan that kp.PrecisionPlan.save wrote")
    add_data(parser, "--data", labels=True, required=False, help="calibration samples for the ranges of activations")
    parser.add_argument("--samples", type=int, metavar="N", help="use the first N calibration samples (all)")
    parser.add_argument("--calibration", default="auto", metavar="METHOD", help="calibration method (auto)")
    parser.add_argument("--runtime", default="litert", metavar="NAME", help="the runtime of the file (litert)")
    parser.add_argument("--io", metavar="TYPE", help="element type of inputs and outputs (that of the activations)")
    switch: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": None}
    text = "correct the biases of a .tflite file for the mean error of rounded weights (yes)"
    parser.add_argument("--bias-correction", help=text, **switch)
    parser.add_argument(
        "--rounding",
        choices=ROUNDINGS,
        help="how weights of a .tflite file are rounded (auto: gptq where it is better, for weights of 4 bits)",
    )
    text = "equalize the ranges of channels between the layers of a .tflite file (no)"
    parser.add_argument("--cross-layer-equalization", help=text, **switch)
    text = (
        "one scale for each output of a dense layer in a .tflite file (yes; with --runtime tflm, if it costs no memory)"
    )
    parser.add_argument("--per-channel", help=text, **switch)
    parser.add_argument("--weights", metavar="WAY", help="int8 weights in Core ML: linear or palettized (linear)")
    parser.add_argument(
        "--validation", metavar="FILE", help="samples and labels for evaluation: an .npz file with the same names"
    )
    parser.add_argument("--strict", action="store_true", help="refuse a file with any operator in float")
    parser.add_argument("--no-overwrite", action="store_true", help="refuse to replace a file")
    parser.add_argument("--unsafe", action="store_true", help="run Python code in the model file (Lambda)")


def _run(options: argparse.Namespace) -> CommandOutput:
    import keras_precision as kp

    plan = kp.PrecisionPlan.load(options.plan) if options.plan else options.precision
    samples = None
    if options.data:
        x, _ = read_data(options.data, options.x, None)
        samples = first_samples(x, options.samples)
    validation_data = read_data(options.validation, options.x, options.y) if options.validation else None
    file_format = options.format or _FORMATS.get(Path(options.output).suffix, "tflite")
    if options.weights and file_format != "coreml":
        raise InputError(
            f"Expected --weights with Core ML's format only. Received: it with {file_format}. Leave it out."
        )
    tflite_options = {name: getattr(options, name) for name in _TFLITE_OPTIONS if getattr(options, name) is not None}
    if file_format != "tflite":
        if tflite_options:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in tflite_options)
            raise InputError(
                f"Expected {names} with TensorFlow Lite's format only. Received: it with {file_format}. Leave it out."
            )
        return _output(_export_other(file_format, options, plan, samples, validation_data))
    result = kp.export_tflite(
        kp.load_model(options.model, unsafe=options.unsafe),
        options.output,
        plan,
        samples,
        calibration=options.calibration,
        runtime=options.runtime,
        io=options.io,
        validation_data=validation_data,
        strict=options.strict,
        overwrite=not options.no_overwrite,
        **tflite_options,
    )
    return _output(result)


def _output(result: Result) -> CommandOutput:
    from keras_precision.report.render import render

    return CommandOutput.of(result, render(result) + "".join(f"\nNote: {note}" for note in result.notes))


def _export_other(
    file_format: str, options: argparse.Namespace, plan: Any, samples: Any, validation_data: Any
) -> Result:
    """Export with a toolchain other than TensorFlow Lite's."""
    import keras_precision as kp

    model = kp.load_model(options.model, unsafe=options.unsafe)
    common = {"strict": options.strict, "overwrite": not options.no_overwrite}
    if file_format == "coreml":
        return kp.export_coreml(model, options.output, plan, weights=options.weights or "linear", **common)
    export = kp.export_onnx if file_format == "onnx" else kp.export_openvino
    return export(
        model, options.output, plan, samples, calibration=options.calibration, validation_data=validation_data, **common
    )


COMMAND = Command(
    name="export",
    help="export a model for TensorFlow Lite or another runtime, and validate the file",
    description="Exports a model as a .tflite, .onnx, .xml (OpenVINO) or .mlpackage (Core ML) file, reads it back, runs it, and "
    "reports its content. Nothing is written unless all checks pass.",
    examples=(
        "export model.keras -o model.tflite --precision int8 --data calib.npz",
        "export model.keras -o model.tflite --plan plan.json --data train.npz --x x_train --samples 500",
        "export model.keras -o model.onnx --precision int8 --data calib.npz",
        "export old.h5 -o model.tflite --precision float16 --validation test.npz --json",
    ),
    arguments=_arguments,
    run=_run,
)
