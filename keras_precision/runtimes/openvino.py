"""OpenVINO files: read, and run with OpenVINO on the processor."""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import FileFormatError, InputError
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.files import check_exists
from keras_precision.core.system.optional import require
from keras_precision.runtimes.model_info import CARD, EdgeModel, Tensor, runnable_sample
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
    """Read inputs, outputs and operators of an ``.xml`` file with its ``.bin``, and check that OpenVINO loads and runs it.

    The operators are those that the runtime compiles for the processor of this machine.

    Example:
        >>> import keras_precision as kp
        >>> written = kp.export_openvino(model, "model.xml", "float32")
        >>> [tensor.shape for tensor in inspect_openvino("model.xml").outputs]
        [(1, 2)]
    """
    return OpenvinoSession(path).model


class OpenvinoSession(RuntimeSession):
    """OpenVINO with one ``.xml`` file and its ``.bin``.

    ``precision`` is the inference precision hint, ``"f32"`` or ``"bf16"``; with None, OpenVINO chooses, which is bf16 on
    processors that multiply in it.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1, precision: str | None = "f32") -> None:
        if threads < 1:
            raise InputError(f"Expected threads >= 1. Received: {threads}.")
        openvino = require("openvino", extra="openvino")
        check_exists(path, "an OpenVINO file")
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        settings["ENABLE_CPU_PINNING"] = False  # other processes may use the same core
        settings |= {"INFERENCE_PRECISION_HINT": precision} if precision is not None else {}
        try:
            with capture_output("OpenVINO"):
                core = _core()
                read = core.read_model(os.fspath(path))
                self._card = str(read.get_rt_info([CARD]).value) if read.has_rt_info([CARD]) else ""
                self._compiled = core.compile_model(read, "CPU", settings)
                self._request = self._compiled.create_infer_request()
            super().__init__(self._described(path, openvino.__version__.partition("-")[0]))
            runnable_sample(self.model, self.run)
        except (RuntimeError, UnicodeDecodeError) as error:  # OpenVINO's own, and that of Python for its names
            last = str(error).strip().splitlines()[-1]
            raise FileFormatError(
                f"{path}: expected an OpenVINO file, with its .bin beside it, that loads and runs. Received: one that OpenVINO refuses ({last})."
            ) from error

    def run(self, sample: Sequence[Array]) -> list[Array]:
        """Run the model once, on one array per input."""
        pairs = zip(self.model.inputs, sample, strict=True)
        inputs = {tensor.name: np.ascontiguousarray(tensor.quantize(values)) for tensor, values in pairs}
        outputs = self._request.infer(inputs, share_inputs=True)
        return [np.array(outputs[output]) for output in self._compiled.outputs]

    def _described(self, path: str | os.PathLike[str], version: str) -> EdgeModel:
        hint = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        nodes = list(self._compiled.get_runtime_model().get_ordered_ops())
        writers = {node.get_friendly_name(): number for number, node in enumerate(_computing(nodes))}
        files = (Path(path), Path(path).with_suffix(".bin"))
        return EdgeModel(
            path=str(path),
            size_bytes=sum(file.stat().st_size for file in files if file.exists()),
            runtime=f"openvino {version} (inference precision {hint})",
            inputs=tuple(_tensor(port) for port in self._compiled.inputs),
            outputs=tuple(_tensor(port) for port in self._compiled.outputs),
            operators=tuple(_operator(node, writers) for node in _computing(nodes)),
            writers=tuple(_writer(nodes, port.get_any_name(), writers) for port in self._compiled.outputs),
            card=self._card,
        )


@cache
def _core() -> Any:
    """Return the Core of this process, which is never destroyed.

    Where the processor has AMX, the CPU plugin of a Core replaces the alternate signal stack of the thread, and puts back
    the one before it when it is destroyed. Of two Cores that are destroyed in the order in which they were made, the second
    puts back the freed stack of the first, and the next signal that Python handles, such as that of Ctrl-C, ends the process.
    The stacks came with https://github.com/openvinotoolkit/openvino/pull/11894.
    """
    return require("openvino", extra="openvino").Core()


def _rt_info(node: Any, name: str) -> str:
    """An entry of a node's runtime information."""
    value = node.get_rt_info()[name]
    return str(getattr(value, "value", value))


def _computing(nodes: Sequence[Any]) -> Iterator[Any]:
    for node in nodes:
        if _rt_info(node, "layerType") not in _NO_OPERATORS:
            yield node


def _operator(node: Any, writers: dict[str, int]) -> Operator:
    kernel, primitive = _rt_info(node, "layerType"), _rt_info(node, "primitiveType").lower().rpartition("_")[2]
    sources = [port.get_source_output().get_node() for port in node.inputs()]
    constants = [source for source in sources if _rt_info(source, "layerType") == "Const"]
    weights = [_rt_info(constant, "runtimePrecision") for constant in constants]
    stored = _rt_info(sources[1], "runtimePrecision") if kernel in _WEIGHTED else primitive
    precision = _KERNELS.get("i8" if primitive == "i8" else stored, "index")
    names = [name for name in _rt_info(node, "originalLayersNames").split(",") if name]
    written = [_KERNELS.get(kind, kind) for kind in _rt_info(node, "outputPrecisions").split(",")]
    quantizes = any("/fq_" in name or "uantizeLinear" in name for name in names)
    if kernel == "Convert" or (kernel == "Subgraph" and quantizes):
        precision = "cast"
    elif kernel in _LOOPS and precision != "int8":
        precision = "opaque"
    return Operator(
        kernel=kernel,
        precision="index" if kernel in _MOVES and precision != "int8" else precision,
        tensors=tuple(names),
        reads=tuple(sorted({writers[name] for name in _names_behind(sources) if name in writers})),
        weights=tuple(_KERNELS.get(kind, kind) for kind in weights),
        types=f"{_KERNELS.get(primitive, primitive)}->{','.join(written)}",
    )


def _names_behind(nodes: Sequence[Any]) -> Iterator[str]:
    """The names of the operators that compute, looking through reorders of memory."""
    for node in nodes:
        if _rt_info(node, "layerType") == "Reorder":
            yield from _names_behind([port.get_source_output().get_node() for port in node.inputs()])
        else:
            yield str(node.get_friendly_name())


def _writer(nodes: Sequence[Any], output: str, writers: dict[str, int]) -> int:
    for node in nodes:
        if _rt_info(node, "layerType") == "Output" and node.get_friendly_name().partition("/sink_port")[0] == output:
            before = [port.get_source_output().get_node() for port in node.inputs()]
            return next((writers[name] for name in _names_behind(before) if name in writers), -1)
    return -1


def _tensor(port: Any) -> Tensor:
    shape = tuple(-1 if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return Tensor(port.get_any_name(), shape, np.dtype(port.get_element_type().to_dtype()).name)
