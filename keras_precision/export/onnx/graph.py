"""A float ``.tflite`` file as an ONNX graph, with the names of the model's inputs and outputs."""

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_precision.core.errors import ExportError
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.optional import require
from keras_precision.quantization.float_model import FloatFile
from keras_precision.runtimes.onnx_operators import node_name
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["onnx_graph"]

_OPSET = 18
_OPSET_OF_GELU = 20


def onnx_graph(source: FloatFile, name: str) -> Any:
    """Return the model of a float file in ONNX, as ``onnx`` has it; ``name`` is the model's, for messages.

    tf2onnx reads the file that the ranges were measured on: batch normalizations are folded, and tensors are those of the
    calibration.

    Raises:
        ExportError: An operator has no counterpart in ONNX, or the result is not valid.
        MissingExtraError: ``onnx`` or ``tf2onnx`` is not installed.
    """
    onnx = require("onnx", extra="onnx")
    convert = _tf2onnx()
    with tempfile.TemporaryDirectory() as folder, capture_output("tf2onnx"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's own, of its interpreter that tf2onnx uses
        path = Path(folder) / "model.tflite"
        path.write_bytes(_readable(source.content))
        try:
            model, _ = convert.from_tflite(str(path), opset=_OPSET)
        except Exception as error:  # tf2onnx raises errors of any kind, chained here
            raise ExportError(
                f"Expected tf2onnx to convert '{name}' to ONNX. Received: {type(error).__name__}: {error}"
            ) from error
    _replace_gelu(onnx, model)
    _enlarge_outputs(onnx, model)
    _refuse_unknown(model, source, name)
    for number, node in enumerate(model.graph.node):
        node.name = node_name(node, number)
    _rename(model.graph, dict(_sides(source)))
    _order(model.graph.input, [name for _, name in _inputs(source)])
    _order(model.graph.output, [name for _, name in _outputs(source)])
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"Expected tf2onnx to write a valid graph of '{name}'. Received: {error}. Leave the layer of that node out of the model, "
            "or export with kp.export_tflite."
        ) from error
    return model


def _readable(content: bytes) -> bytes:
    """A float file as tf2onnx reads it rightly.

    Its handler of FULLY_CONNECTED drops the bias where the operator also flattens its input
    (``ctx.replace_inputs`` with two inputs of three): a RESHAPE of its own avoids that branch.
    https://github.com/onnx/tensorflow-onnx/blob/v1.17.0/tf2onnx/tflite_handlers/tfl_math.py#L208-L215
    """
    graph = Flatbuffer(content)
    graph.flatten_dense_inputs()
    return graph.content()


def _tf2onnx() -> Any:
    require("tf2onnx", extra="onnx")
    with capture_output("tf2onnx"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        return require("tf2onnx.convert", extra="onnx")


def _replace_gelu(onnx: Any, model: Any) -> None:
    """Replace TensorFlow Lite's GELU, which tf2onnx copies as it is, by the operator that ONNX has for it."""
    for node in model.graph.node:
        if node.op_type == "TFL_GELU":
            approximate = any(attribute.name == "approximate" and attribute.i for attribute in node.attribute)
            del node.attribute[:]
            node.op_type, node.domain = "Gelu", ""
            node.attribute.append(onnx.helper.make_attribute("approximate", "tanh" if approximate else "none"))
            main = next(opset for opset in model.opset_import if not opset.domain)
            main.version = max(main.version, _OPSET_OF_GELU)


def _enlarge_outputs(onnx: Any, model: Any) -> None:
    """Write what a transposed convolution adds at the end of its output as ONNX has it.

    tf2onnx writes it as negative padding where strides are larger than the kernel, which ONNX refuses:
    https://github.com/onnx/tensorflow-onnx/blob/v1.17.0/tf2onnx/onnx_opset/nn.py.
    """
    for node in model.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type != "ConvTranspose" or "pads" not in attributes:
            continue
        pads = list(attributes["pads"].ints)
        totals = [sum(sides) for sides in zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True)]
        if min(pads) >= 0:
            continue
        for number, total in enumerate(totals):
            if total < 0:  # TensorFlow adds all of it at the end
                pads[number] = pads[number + len(totals)] = 0
        attributes["pads"].ints[:] = pads
        extra = [max(0, -total) for total in totals]
        node.attribute.append(onnx.helper.make_attribute("output_padding", extra))


def _refuse_unknown(model: Any, source: FloatFile, name: str) -> None:
    """Raise for operators that tf2onnx left under their TensorFlow Lite names."""
    foreign: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type.startswith("TFL_") or node.op_type == "Erfc":
            parts = [part for tensor in node.output for part in tensor.split(";")]
            layer = next((path for part in parts if (path := source.trace.path_of(part))), node.output[0])
            foreign.setdefault(node.op_type.removeprefix("TFL_"), layer)
    if foreign:
        named = ", ".join(f"{kernel} of layer '{layer}'" for kernel, layer in foreign.items())
        raise ExportError(
            f"Expected operators that ONNX has for '{name}'. Received: no counterpart of {named}. "
            "Replace it with operations that have one."
        )


def _inputs(source: FloatFile) -> list[tuple[str, str]]:
    """Tensor and name of every input, in the model's order as far as the file has it."""
    graph = Flatbuffer(source.content)
    names = {number: name for name, number in graph.named_inputs().items()}
    return [(graph.name(number), names[number]) for number in graph.inputs]


def _outputs(source: FloatFile) -> list[tuple[str, str]]:
    """Tensor and name of every output, in the model's order."""
    graph = Flatbuffer(source.content)
    named = sorted(graph.named_outputs().items(), key=lambda item: int(item[0].rpartition("_")[2]))
    return [(graph.name(number), name) for name, number in named]


def _sides(source: FloatFile) -> Iterator[tuple[str, str]]:
    yield from _inputs(source)
    yield from _outputs(source)


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for side in (node.input, node.output):
            for number, name in enumerate(side):
                side[number] = names.get(name, name)
        for attribute in node.attribute:
            if attribute.g.node:  # the body of a loop reads from outside by name
                _rename(attribute.g, names)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)


def _order(values: Any, names: list[str]) -> None:
    """Put the inputs, or outputs, of a graph into an order."""
    by_name = {value.name: value for value in map(_copied, values)}
    del values[:]
    values.extend(by_name[name] for name in names)


def _copied(value: Any) -> Any:
    copy = type(value)()
    copy.CopyFrom(value)
    return copy
