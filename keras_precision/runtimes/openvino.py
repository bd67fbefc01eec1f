"""An OpenVINO file as it is, and OpenVINO's processor runtime on it."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import FileFormatError, InputError
from keras_precision.core.system.captured_output import captured
from keras_precision.core.system.files import check_exists
from keras_precision.core.system.optional import require
from keras_precision.runtimes.model_info import CARD, EdgeModel, Tensor, zeros
from keras_precision.runtimes.session import RuntimeSession
from keras_precision.runtimes.tflite.operators import Operator

__all__ = ["OpenvinoSession", "inspect_openvino"]

Array = npt.NDArray[Any]

_NO_OPERATORS = ("Input", "Output", "Const", "Reorder")
_MOVES = (
    "Concatenation",
    "Gather",
    "MemoryInput",
    "MemoryOutput",
    "Reshape",
    "ShapeOf",
    "Split",
    "StridedSlice",
    "Transpose",
)
_LOOPS = ("If", "Loop", "RNNCell", "RNNSeq", "TensorIterator")
_KERNELS = {"i8": "int8", "f16": "float16", "bf16": "bfloat16", "f32": "float32"}
_WEIGHTED = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")


def inspect_openvino(path: str | os.PathLike[str]) -> EdgeModel:
    """Read what an OpenVINO file holds, and prove that OpenVINO loads and runs it.

    Example:
        >>> import keras_precision as kp
        >>> written = kp.export_openvino(model, "model.xml", "float32")
        >>> [tensor.shape for tensor in inspect_openvino("model.xml").outputs]
        [(1, 2)]
    """
    return OpenvinoSession(path).model


class OpenvinoSession(RuntimeSession):
    """OpenVINO on one file, ready to answer."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1, precision: str | None = "f32") -> None:
        if threads < 1:
            raise InputError(f"Expected threads >= 1. Received: {threads}.")
        openvino = require("openvino", extra="openvino")
        check_exists(path, "an OpenVINO file")
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        settings["ENABLE_CPU_PINNING"] = False  # to a core that others use, too
        settings |= {"INFERENCE_PRECISION_HINT": precision} if precision is not None else {}
        try:
            with captured("OpenVINO"):
                core = openvino.Core()
                read = core.read_model(os.fspath(path))
                self._card = str(read.get_rt_info([CARD]).value) if read.has_rt_info([CARD]) else ""
                self._compiled = core.compile_model(read, "CPU", settings)
                self._request = self._compiled.create_infer_request()
            super().__init__(self._described(path, openvino.__version__.partition("-")[0]))
            self.run(zeros(self.model))
        except RuntimeError as error:  # OpenVINO raises this for all that it refuses
            last = str(error).strip().splitlines()[-1]
            raise FileFormatError(
                f"{path}: expected an OpenVINO file, with its .bin beside it, that loads and runs. Received: one that OpenVINO refuses ({last})."
            ) from error

    def run(self, sample: Sequence[Array]) -> list[Array]:
        """Run the model once."""
        given = {
            t.name: np.ascontiguousarray(t.quantize(each)) for t, each in zip(self.model.inputs, sample, strict=True)
        }
        answers = self._request.infer(given, share_inputs=True)
        return [np.array(answers[output]) for output in self._compiled.outputs]

    def _described(self, path: str | os.PathLike[str], version: str) -> EdgeModel:
        hint = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        nodes = list(self._compiled.get_runtime_model().get_ordered_ops())
        made_by = {node.get_friendly_name(): number for number, node in enumerate(_computing(nodes))}
        return EdgeModel(
            path=str(path),
            size_bytes=sum(
                each.stat().st_size for each in (Path(path), Path(path).with_suffix(".bin")) if each.exists()
            ),
            runtime=f"openvino {version} (inference precision {hint})",
            inputs=tuple(_tensor(port) for port in self._compiled.inputs),
            outputs=tuple(_tensor(port) for port in self._compiled.outputs),
            operators=tuple(_operator(node, made_by) for node in _computing(nodes)),
            writers=tuple(_writer(nodes, port.get_any_name(), made_by) for port in self._compiled.outputs),
            card=self._card,
        )


def _told(node: Any, name: str) -> str:
    """What the runtime says of a node."""
    value = node.get_rt_info()[name]
    return str(getattr(value, "value", value))


def _computing(nodes: Sequence[Any]) -> Iterator[Any]:
    for node in nodes:
        if _told(node, "layerType") not in _NO_OPERATORS:
            yield node


def _operator(node: Any, made_by: dict[str, int]) -> Operator:
    kernel, primitive = _told(node, "layerType"), _told(node, "primitiveType").lower().rpartition("_")[2]
    sources = [port.get_source_output().get_node() for port in node.inputs()]
    weights = [_told(each, "runtimePrecision") for each in sources if _told(each, "layerType") == "Const"]
    stored = _told(sources[1], "runtimePrecision") if kernel in _WEIGHTED else primitive
    precision = _KERNELS.get("i8" if primitive == "i8" else stored, "index")
    names = [name for name in _told(node, "originalLayersNames").split(",") if name]
    written = [_KERNELS.get(each, each) for each in _told(node, "outputPrecisions").split(",")]
    if kernel == "Convert" or (
        kernel == "Subgraph" and any("/fq_" in each or "uantizeLinear" in each for each in names)
    ):
        precision = "cast"
    elif kernel in _LOOPS and precision != "int8":
        precision = "opaque"
    return Operator(
        kernel=kernel,
        precision="index" if kernel in _MOVES and precision != "int8" else precision,
        tensors=tuple(names),
        reads=tuple(sorted({made_by[name] for name in _names_behind(sources) if name in made_by})),
        weights=tuple(_KERNELS.get(each, each) for each in weights),
        types=f"{_KERNELS.get(primitive, primitive)}->{','.join(written)}",
    )


def _names_behind(nodes: Sequence[Any]) -> Iterator[str]:
    """The names of what computes, behind changes of the memory's order."""
    for node in nodes:
        if _told(node, "layerType") == "Reorder":
            yield from _names_behind([port.get_source_output().get_node() for port in node.inputs()])
        else:
            yield str(node.get_friendly_name())


def _writer(nodes: Sequence[Any], output: str, made_by: dict[str, int]) -> int:
    for node in nodes:
        if _told(node, "layerType") == "Output" and node.get_friendly_name().partition("/sink_port")[0] == output:
            before = [port.get_source_output().get_node() for port in node.inputs()]
            return next((made_by[name] for name in _names_behind(before) if name in made_by), -1)
    return -1


def _tensor(port: Any) -> Tensor:
    shape = tuple(-1 if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return Tensor(port.get_any_name(), shape, np.dtype(port.get_element_type().to_dtype()).name)
