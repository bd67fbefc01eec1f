"""Files run by their runtimes, driven by hand: a reference that shares no code with the package."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["converted_int8", "error_of", "noise_power", "run_onnx", "run_openvino", "run_tflite", "snr"]

Array = np.ndarray[Any, np.dtype[Any]]


def run_tflite(path: Path, inputs: Mapping[str, Array], *, delegates: bool = True) -> list[Array]:
    """Run a ``.tflite`` file with LiteRT, one sample a call; inputs by name, outputs in the order of the file.

    Without delegates, integers are rounded as the specification of the format says. XNNPACK rounds the ratio of two scales to
    a multiple of 1/256 where it converts one into the other, so that large values are off by a step.
    """
    interpreter = _opened(path, delegates=delegates)
    inputs_by_name, outputs = _signature(interpreter)
    rows: list[list[Array]] = [[] for _ in outputs]
    for sample in range(len(next(iter(inputs.values())))):
        for name, detail in inputs_by_name.items():
            interpreter.set_tensor(detail["index"], quantized(inputs[name][sample : sample + 1], detail))
        interpreter.reset_all_variables()
        interpreter.invoke()
        for detail, values in zip(outputs, rows, strict=True):
            values.append(dequantized(interpreter.get_tensor(detail["index"]), detail))
    return [np.concatenate(values) for values in rows]


def output_steps(path: Path) -> list[float]:
    """Return by how much a sum that is rounded the other way changes every output of a ``.tflite`` file; 0 where it is a float.

    That is one step of the output, or of the integers that are converted to it. A softmax or a sigmoid, whose output has finer
    steps than its input, adds what one step of the input changes: at most 2 s p (1 - p) for steps of s, since the logarithms of
    all odds change by 2 s at most.
    """
    interpreter = _opened(path, delegates=False)  # their nodes would stand for the operators
    scales = {detail["index"]: float(detail["quantization"][0]) for detail in interpreter.get_tensor_details()}
    writers = {int(number): operator for operator in interpreter._get_ops_details() for number in operator["outputs"]}

    def step(number: int) -> float:
        writer = writers.get(number, {"op_name": "", "inputs": ()})
        if writer["op_name"] == "DEQUANTIZE":
            return step(int(writer["inputs"][0]))
        if scales[number] and writer["op_name"] in ("SOFTMAX", "LOGISTIC"):
            return scales[number] + scales[int(writer["inputs"][0])] / 2
        return scales[number]

    return [step(detail["index"]) for detail in _signature(interpreter)[1]]


def input_names(path: Path) -> list[str]:
    """Return the names of the inputs of a ``.tflite`` file, by its signature, in the order of its tensors."""
    interpreter = _opened(path)
    names = {detail["index"]: name for name, detail in _signature(interpreter)[0].items()}
    return [names[detail["index"]] for detail in interpreter.get_input_details()]


def _opened(path: Path, *, delegates: bool = True) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.AUTO if delegates else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    return interpreter


def _signature(interpreter: Any) -> tuple[dict[str, Any], list[Any]]:
    """Return the inputs by the names of the signature, and the outputs in the order of theirs."""
    (signature,) = interpreter.get_signature_list()
    runner = interpreter.get_signature_runner(signature)
    outputs = runner.get_output_details()
    return runner.get_input_details(), [outputs[name] for name in sorted(outputs)]


def quantized(values: Array, detail: Mapping[str, Any]) -> Array:
    """Round samples to the number format of an input, as its scale and zero point say."""
    scale, zero_point = detail["quantization"]
    if scale and np.issubdtype(detail["dtype"], np.integer):
        limits = np.iinfo(detail["dtype"])
        values = np.clip(np.round(values.astype("float64") / scale) + zero_point, limits.min, limits.max)
    return np.asarray(values).astype(detail["dtype"])


def dequantized(values: Array, detail: Mapping[str, Any]) -> Array:
    """Return the real numbers that an output stands for."""
    scale, zero_point = detail["quantization"]
    if scale and np.issubdtype(detail["dtype"], np.integer):
        return (values.astype("float64") - zero_point) * scale
    return np.array(values)


def run_onnx(path: Path, inputs: Mapping[str, Array]) -> list[Array]:
    """Run an ``.onnx`` file with ONNX Runtime, one sample a call, without rewriting its graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    types = {entry.name: entry.type for entry in session.get_inputs()}
    wide = {
        name: values.astype("float32") if types.get(name) == "tensor(float)" else values
        for name, values in inputs.items()
    }
    rows = [
        session.run(None, {name: values[sample : sample + 1] for name, values in wide.items()})
        for sample in range(len(next(iter(inputs.values()))))
    ]
    return [np.concatenate(output) for output in zip(*rows, strict=True)]


def run_openvino(path: Path, inputs: Mapping[str, Array]) -> list[Array]:
    """Run an ``.xml`` file with OpenVINO in float32, which is not its own choice on every processor."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)
    rows = []
    for sample in range(len(next(iter(inputs.values())))):
        results = compiled({name: values[sample : sample + 1] for name, values in inputs.items()})
        rows.append([np.array(results[output]) for output in compiled.outputs])
    return [np.concatenate(output) for output in zip(*rows, strict=True)]


def converted_int8(model: Any, calibration: Sequence[Array], path: Path) -> None:
    """Write the int8 file of plain TFLiteConverter, for one sample a call; its inputs are ``input_0`` and so on."""
    import tensorflow

    def serve(**tensors: Any) -> dict[str, Any]:
        listed = [tensors[f"input_{number}"] for number in range(len(calibration))]
        outputs = model(listed if len(listed) > 1 else listed[0], training=False)
        return {f"output_{number}": output for number, output in enumerate(_listed(outputs))}

    signature = {
        f"input_{number}": tensorflow.TensorSpec((1, *array.shape[1:]), array.dtype, name=f"input_{number}")
        for number, array in enumerate(calibration)
    }
    holder = tensorflow.Module()
    holder.model = model
    holder.variables_of_model = [  # what a Keras 3 model keeps them in is not tracked
        variable if isinstance(variable, tensorflow.Variable) else variable.value for variable in model.variables
    ]
    serving = tensorflow.function(serve).get_concrete_function(**signature)
    with tempfile.TemporaryDirectory() as folder:
        tensorflow.saved_model.save(holder, folder, signatures={"serving_default": serving})
        converter = tensorflow.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [
            tensorflow.lite.OpsSet.TFLITE_BUILTINS_INT8, tensorflow.lite.OpsSet.TFLITE_BUILTINS
        ]  # fmt: skip
        converter.representative_dataset = lambda: (
            {f"input_{number}": array[sample : sample + 1] for number, array in enumerate(calibration)}
            for sample in range(len(calibration[0]))
        )
        path.write_bytes(converter.convert())


def _listed(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def error_of(expected: Sequence[Array], received: Sequence[Array]) -> float:
    """Return the largest error of any output, in units of the largest magnitude of that output."""
    errors = []
    for reference, values in zip(expected, received, strict=True):
        wide = reference.astype("float64")
        largest = np.abs(wide).max()
        error = np.abs(values.reshape(wide.shape).astype("float64") - wide).max()
        errors.append(error / largest if largest else error)
    return float(max(errors))


def noise_power(reference: Array, values: Array) -> float:
    """Return the mean squared error in variances of the reference over the samples."""
    wide = reference.astype("float64").reshape(len(reference), -1)
    error = np.square(values.astype("float64").reshape(wide.shape) - wide).mean()
    variance = np.square(wide - wide.mean(axis=0)).mean()
    return float(error / variance) if variance else float(error)


def snr(reference: Array, values: Array) -> float:
    """Return the signal-to-noise ratio in dB."""
    wide, received = reference.astype("float64"), values.astype("float64").reshape(reference.shape)
    noise = np.square(wide - received).sum()
    return float(10 * np.log10(np.square(wide).sum() / noise)) if noise else float("inf")


def divergence(reference: Array, values: Array) -> float:
    """Return the Kullback-Leibler divergence of rows of probabilities, or of single ones; else the error in variances.

    Variances are those of channels, where there are several and they are no probabilities; a channel counts as 1 at most.
    """
    p, q = reference.astype("float64"), values.astype("float64").reshape(reference.shape)
    inside = bool(((p >= 0) & (p <= 1)).all())
    several = p.ndim > 1 and p.shape[-1] > 1
    if not inside or (several and not np.allclose(p.sum(axis=-1), 1, atol=0.02)):
        power, variance = np.square(q - p).reshape(-1, p.shape[-1]), np.var(p) or 1.0
        if inside or p.ndim < 2 or not 1 < p.shape[-1] <= 256:
            return float(np.mean(power) / variance)
        table = p.reshape(-1, p.shape[-1])
        varies = table.std(axis=0) > 1e-6 * np.abs(table).max(axis=0)
        own = power.mean(axis=0) / np.where(varies, table.var(axis=0), variance)
        return float(np.mean(np.minimum(own, np.maximum(power.mean(axis=0) / variance, 1.0))))
    if not several:
        p, q = np.stack([1 - p, p], axis=-1), np.stack([1 - q, q], axis=-1)
    p, q = np.maximum(p, 1 / 512), np.maximum(q, 1 / 512)
    p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)
    return float(max(0.0, (p * np.log(p / q)).sum(axis=-1).mean()))
