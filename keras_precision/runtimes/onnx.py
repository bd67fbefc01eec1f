"""ONNX files: read, and run with ONNX Runtime."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import FileFormatError, InputError
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.files import check_exists
from keras_precision.core.system.optional import require
from keras_precision.runtimes.model_info import CARD, EdgeModel, Tensor, runnable_sample
from keras_precision.runtimes.onnx_operators import onnx_operators, onnx_writers
from keras_precision.runtimes.session import RuntimeSession

__all__ = ["OnnxSession", "inspect_onnx", "onnx_types", "open_onnx", "read_onnx"]

Array = npt.NDArray[Any]


def read_onnx(path: str | os.PathLike[str]) -> Any:
    """Read a file with ``onnx``, and check it against the specification."""
    onnx = require("onnx", extra="onnx")
    file = check_exists(path, "an ONNX file")
    content = file.read_bytes() if not file.is_dir() else b""
    try:
        model = onnx.load_model_from_string(content)
        onnx.checker.check_model(model)
    except Exception as error:  # the types of errors of protobuf and of the checker depend on their versions
        first = str(error).strip().partition("\n")[0]
        raise FileFormatError(
            f"{path}: expected an ONNX file. Received: a damaged or foreign file ({first})."
        ) from error
    return model


def onnx_types(model: Any) -> dict[str, str]:
    """Return tensor to NumPy's name of its dtype, for all whose dtype can be inferred."""
    onnx = require("onnx", extra="onnx")
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {
        value.name: value.type.tensor_type.elem_type
        for values in (graph.input, graph.output, graph.value_info)
        for value in values
    }
    return {name: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).name for name, kind in types.items() if kind}


def inspect_onnx(path: str | os.PathLike[str]) -> EdgeModel:
    """Read inputs, outputs and operators of an ``.onnx`` file, and check that ONNX Runtime loads and runs it.

    Example:
        >>> import keras_precision as kp
        >>> written = kp.export_onnx(model, "model.onnx", "float32")
        >>> inspect_onnx("model.onnx").operator_counts
        {'MatMul float32': 2, 'Relu float32': 1, 'Softmax float32': 1}
    """
    return OnnxSession(path).model


class OnnxSession(RuntimeSession):
    """ONNX Runtime with one file; a call uses that many threads."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1) -> None:
        if threads < 1:
            raise InputError(f"Expected threads >= 1. Received: {threads}.")
        model = read_onnx(path)
        self._opened = open_onnx(model, path, threads=threads)
        super().__init__(_described(model, path))
        try:
            runnable_sample(self.model, self.run, Exception)
        except Exception as error:  # ONNX Runtime has a class of errors for every status code
            raise _cannot_run(path, error) from error

    def run(self, sample: Sequence[Array]) -> list[Array]:
        """Run the model once, on one array per input."""
        pairs = zip(self.model.inputs, sample, strict=True)
        outputs = self._opened.run(None, {tensor.name: tensor.quantize(values) for tensor, values in pairs})
        return [np.asarray(output) for output in outputs]


def open_onnx(model: Any, path: str | os.PathLike[str], *, threads: int = 1, optimize: bool = True) -> Any:
    """Open a model with ONNX Runtime on the processor; with ``optimize``, it may fuse operators."""
    runtime = require("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        with capture_output("onnxruntime"):
            return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        raise _cannot_run(path, error) from error


def _cannot_run(path: str | os.PathLike[str], error: Exception) -> FileFormatError:
    first = str(error).strip().partition("\n")[0]
    return FileFormatError(
        f"{path}: expected an ONNX file that ONNX Runtime runs. Received: one that it refuses ({first})."
    )


def _described(model: Any, path: str | os.PathLike[str]) -> EdgeModel:
    runtime = require("onnxruntime", extra="onnx")
    types = onnx_types(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    return EdgeModel(
        path=str(path),
        size_bytes=Path(path).stat().st_size,
        runtime=f"onnxruntime {runtime.__version__}",
        inputs=tuple(_tensor(value, types) for value in model.graph.input if value.name not in constants),
        outputs=tuple(_tensor(value, types) for value in model.graph.output),
        operators=tuple(onnx_operators(model.graph, types)),
        writers=tuple(onnx_writers(model.graph)),
        card=next((entry.value for entry in model.metadata_props if entry.key == CARD), ""),
    )


def _tensor(value: Any, types: dict[str, str]) -> Tensor:
    sizes = value.type.tensor_type.shape.dim
    return Tensor(
        value.name, tuple(size.dim_value if size.HasField("dim_value") else -1 for size in sizes), types[value.name]
    )
