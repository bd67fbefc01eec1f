"""export_openvino: a Keras model as an OpenVINO file that was read back and run on its processor runtime."""

import contextlib
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from keras_precision.core.errors import DataError, ExportError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.files import write_atomic
from keras_precision.core.system.optional import require
from keras_precision.export.conversion_check import check_conversion
from keras_precision.export.onnx.graph import onnx_graph
from keras_precision.export.onnx.quantizer import quantized_graph
from keras_precision.export.pipeline import export_file
from keras_precision.export.toolchain import ExportedFile, ExportJob, Toolchain, check_session
from keras_precision.runtimes.model_info import CARD, EdgeModel
from keras_precision.runtimes.openvino import OpenvinoSession, inspect_openvino
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["OpenvinoToolchain", "export_openvino"]

# https://github.com/openvinotoolkit/telemetry/blob/master/src/utils/opt_in_checker.py reads CI, and
# https://github.com/openvinotoolkit/nncf/blob/develop/src/nncf/telemetry/wrapper.py NNCF_CI.
_NO_TELEMETRY = {"CI": "true", "NNCF_CI": "1"}


def export_openvino(
    model: Any,
    path: str | os.PathLike[str],
    plan: str | PrecisionPlan | None = None,
    representative_dataset: Any = None,
    *,
    calibration: str = "auto",
    percentile: float = 99.99,
    validation_data: Any = None,
    reduce_range: bool = True,
    strict: bool = False,
    input_signature: Any = None,
    overwrite: bool = True,
) -> Result:
    """Write a model as OpenVINO's ``.xml`` and ``.bin``, read it back, and run it on the processor.

    Integers come from NNCF's post-training quantization from samples; from a ``kp.calibrate``
    result, with the ranges of that. The result reports what OpenVINO's runtime on this machine computes
    every operator in, with the inference precision float32: by itself it takes bfloat16
    on processors that multiply in it.

    Args:
        model: A built model of tf_keras, or of Keras 3 on any backend; a subclassed one must have been called.
        path: Where the file goes, ending in ``.xml``; its folder must exist. Nothing is written
            unless all checks pass.
        plan: ``"float32"``, ``"float16"`` (weights), ``"int8"``, or a deployment plan of int8 and float32.
            None: int8, or, for what ``kp.quantize_aware`` returned, what it was trained for.
        representative_dataset: Samples, as for ``kp.calibrate`` (NNCF takes the first 300), or what
            that returned. Needed for int8.
        calibration: How ranges are chosen from a calibration; NNCF has a way of its own.
        percentile: For the method of that name.
        validation_data: ``(samples, labels)``, or a dataset of such batches: adds the file's accuracy, and its
            agreement with the model, to the result.
        reduce_range: Whether int8 weights have 7 bits, as for ``kp.export_onnx``.
        strict: Raise for every operator that is not in the plan's default, not for named layers alone.
        input_signature: The sizes of inputs that the model leaves free, as ``Model.export`` of Keras takes them, such as
            ``[keras.InputSpec(shape=(1, 128), dtype="int32")]``. None: those of the data.
        overwrite: Whether older files may be replaced.

    Returns:
        As ``kp.export_onnx``; ``size_bytes`` is that of both files.

    Raises:
        PrecisionError: As ``kp.export_onnx``.

    Example:
        >>> export_openvino(model, "model.xml", "float16").value("input_type")
        'float32'
    """
    return export_file(
        OpenvinoToolchain(reduce_range=reduce_range), model, path, plan, representative_dataset, calibration=calibration, percentile=percentile, strict=strict,
        validation_data=validation_data, input_signature=input_signature, overwrite=overwrite,
    )  # fmt: skip


class OpenvinoToolchain(Toolchain):
    """``.xml`` files on OpenVINO.

    Args:
        reduce_range: Whether int8 weights have 7 bits.
    """

    name, suffix, extra = "openvino", ".xml", "openvino"
    packages = ("openvino", "nncf", "onnx", "onnxruntime", "tf2onnx")
    companions = (".bin",)
    calibrates = False

    def __init__(self, *, reduce_range: bool = True) -> None:
        self._reduce_range = reduce_range

    def export(self, job: ExportJob, path: Path) -> ExportedFile:
        """Write the two files, from the model's ONNX graph; that in float32 is checked before anything is quantized."""
        integers = "int8" in job.request.precisions
        if integers and job.calibration is None and job.data is None:
            raise DataError(
                "Expected representative data for int8: samples, or what kp.calibrate returned. Received: none."
            )
        with tempfile.TemporaryDirectory() as folder:  # an open session maps its file, which may not be written again
            graph = onnx_graph(job.source, job.model.name)
            with capture_output("OpenVINO"):
                model, converters = _float_model(graph, job)
                checked = _saved(model, Path(folder) / path.name)
            check_conversion(job, OpenvinoSession(checked), converters)
            with capture_output("OpenVINO"):
                if integers:
                    model = self._quantized(model, graph, job)
                _saved(model, path, halved=job.request.plan.default == "float16")
        if job.request.plan.default == "float16":
            check_session(job.view, OpenvinoSession(path))
        return ExportedFile()

    def _quantized(self, model: Any, graph: Any, job: ExportJob) -> Any:
        """The model in integers: with the ranges of a calibration, whose Q/DQ pairs OpenVINO reads, or with NNCF's own."""
        if job.calibration is None:
            return _quantized_by_nncf(model, job, reduce_range=self._reduce_range)
        return _from_onnx(quantized_graph(graph, job, reduce_range=self._reduce_range), job)

    def read_back(self, path: Path) -> EdgeModel:
        """Read the files, and run them once."""
        return inspect_openvino(path)

    def inscribe(self, path: Path, card: str) -> None:
        """Put the card among the runtime information of the model; OpenVINO, saving it again, would reorder the graph."""
        net, _, _ = path.read_text(encoding="utf-8").rpartition("</net>")
        graph, opened, others = net.rpartition("</edges>")
        others = others.partition("<rt_info>")[2].rpartition("</rt_info>")[0]
        entry = f"<{CARD} value={quoteattr(card)} />"
        write_atomic(path, f"{graph}{opened}\n\t<rt_info>{others}{entry}</rt_info>\n</net>\n")

    def place(self, folder: Path, destination: Path) -> None:
        """Replace graph and weights one after the other, with the weights of both models in between.

        A graph says at which offset each of its weights stands. The older graph reads the front of the weights in between,
        the new one its end, until that is at the front, too.
        """
        weights = destination.with_suffix(".bin")
        graph, new = (folder / destination.name).read_bytes(), (folder / weights.name).read_bytes()
        old = weights.read_bytes() if destination.exists() and weights.is_file() else b""
        if old:
            shift = -(-max(len(old), len(new)) // _ALIGNMENT) * _ALIGNMENT
            write_atomic(weights, old.ljust(shift, b"\0") + new)
            write_atomic(destination, _shifted(graph, shift))
            write_atomic(weights, new.ljust(shift, b"\0") + new)
            write_atomic(destination, graph)
            write_atomic(weights, new)
        else:
            write_atomic(weights, new)
            write_atomic(destination, graph)

    def run(self, path: str | os.PathLike[str], *, threads: int = 1) -> OpenvinoSession:
        """Open the files with OpenVINO's runtime, in float32 where it computes in floats."""
        return OpenvinoSession(path, threads=threads)


_ALIGNMENT = 64  # of a weight in memory, for the widest vectors


def _shifted(graph: bytes, shift: int) -> bytes:
    """The graph whose weights stand ``shift`` bytes later."""
    root = ElementTree.fromstring(graph)  # noqa: S314 - what OpenVINO wrote just now
    for layer in root.iter("layer"):
        if layer.get("type") == "Const":
            for data in layer.iter("data"):
                data.set("offset", str(int(data.get("offset", 0)) + shift))
    return ElementTree.tostring(root)


def _float_model(graph: Any, job: ExportJob) -> tuple[Any, str]:
    """The model in OpenVINO, in float32, with the names of what converted it.

    The ONNX graph has the names that identify layers. OpenVINO does not read its loops, but does read
    those of the float file.
    """
    try:
        return _from_onnx(graph, job), "tf2onnx and OpenVINO"
    except ExportError:
        if len(job.request.precisions) > 1 or not any(node.op_type == "Loop" for node in graph.graph.node):
            raise
    return _from_float_file(job), "OpenVINO"


def _saved(model: Any, path: Path, *, halved: bool = False) -> Path:
    require("openvino", extra="openvino").save_model(model, path, compress_to_fp16=halved)
    return path


def _from_onnx(graph: Any, job: ExportJob) -> Any:
    """The model of an ONNX graph, whose inputs have their own names alone: a cast without effect adds another."""
    model = _read("model.onnx", graph.SerializeToString(), job)
    names = {value.name for value in graph.graph.input}
    for port in model.inputs:
        port.get_tensor().set_names(port.get_names() & names)
    return model


def _from_float_file(job: ExportJob) -> Any:
    """The model's float file, with the names and the order that the model has for inputs and outputs."""
    model = _read("model.tflite", job.source.content, job)
    graph = Flatbuffer(job.source.content)
    names = {graph.name(number): name for name, number in graph.named_inputs().items()}
    for port in model.inputs:
        port.get_tensor().set_names({names[port.get_any_name()]})
    ports = {name: port for port in model.outputs for name in port.get_names()}
    results = []
    for name, number in sorted(graph.named_outputs().items(), key=lambda item: int(item[0].rpartition("_")[2])):
        port = ports[graph.name(number)]
        port.get_tensor().set_names({name})
        results.append(port.get_node())
    return require("openvino", extra="openvino").Model(results, model.get_parameters(), job.model.name)


def _read(name: str, content: bytes, job: ExportJob) -> Any:
    with tempfile.TemporaryDirectory() as folder, _without_telemetry():
        source = write_atomic(Path(folder) / name, content)
        try:
            return require("openvino", extra="openvino").convert_model(source)
        except Exception as error:  # OpenVINO's front ends raise classes of their own
            raise ExportError(_refused(str(error), job)) from error


def _refused(text: str, job: ExportJob) -> str:
    """The message of what OpenVINO refused, with the layer where it names a tensor of the file."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [part for word in re.findall(r"[\w./;:]+", text) for part in word.split(";") if "/" in part]
    layer = next((path for part in named if (path := job.source.trace.path_of(part))), None)
    where = f" (layer '{layer}')" if layer else ""
    looped = "Loop" in text
    remedy = "Build it with unroll=True, give samples in place of a calibration" if looped else "Replace the layer"
    return f"Expected a model that OpenVINO reads. Received: '{job.model.name}', refused with: {' '.join(lines[-3:])}{where}. {remedy}, or export to another format."


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """Keep OpenVINO and NNCF from reporting to a service of their vendor: neither reports where these variables are set."""
    before = {name: os.environ.get(name) for name in _NO_TELEMETRY}
    os.environ.update(_NO_TELEMETRY)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what they import
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _quantized_by_nncf(model: Any, job: ExportJob, *, reduce_range: bool) -> Any:
    """The model quantized by NNCF, with the layers that the plan leaves in float left out."""
    with _without_telemetry():
        nncf = require("nncf", extra="openvino")
        samples = [
            {name: values[number : number + 1] for name, values in job.samples.items()}
            for number in range(len(next(iter(job.samples.values()))))
        ]
        fix = nncf.OverflowFix.ENABLE if reduce_range else nncf.OverflowFix.DISABLE
        left = [
            node.get_friendly_name()
            for node in model.get_ordered_ops()
            if node.get_type_name() not in ("Parameter", "Result", "Constant") and not _in_integers(node, job)
        ]
        return nncf.quantize(
            model,
            nncf.Dataset(samples),
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(names=left) if left else None,
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=fix),
        )


def _in_integers(node: Any, job: ExportJob) -> bool:
    """Whether a node of the graph is in integers by the plan."""
    path = _layer_of(node, job)
    return (job.request.plan.default if path is None else job.request.plan.precision_of(path)) == "int8"


def _layer_of(node: Any, job: ExportJob) -> str | None:
    """The layer of a node; one without a name is a part of what reads it, as a product is of its bias's sum."""
    if node.get_output_size() == 0:
        return None
    names = [part for name in node.output(0).get_names() for part in name.split(";")]
    known = next((path for name in names if (path := job.source.trace.path_of(name))), None)
    readers = [port.get_node() for port in node.output(0).get_target_inputs()]
    return known or next((path for reader in readers if (path := _layer_of(reader, job))), None)
