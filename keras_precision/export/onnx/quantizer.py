"""An ONNX graph in integers: onnxruntime's quantizer, with ranges that are given to it."""

import tempfile
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.system.captured_output import captured
from keras_precision.core.system.files import write_whole
from keras_precision.core.system.optional import require
from keras_precision.export.onnx.ranges import onnx_ranges
from keras_precision.export.toolchain import ExportJob
from keras_precision.quantization.format_assignment import assigned
from keras_precision.quantization.layer_trace import Layers, layers_of
from keras_precision.runtimes.onnx import inspect_onnx, onnx_types
from keras_precision.runtimes.onnx_operators import INTEGER_KERNELS, PRODUCTS

__all__ = ["TARGETS", "in_float16", "in_integers", "integer_nodes", "quantized_graph"]


def quantized_graph(graph: Any, job: ExportJob) -> Any:
    """Return the graph of an export in the number formats that its plan says.

    Args:
        graph: The float graph.
        job: What is asked for; it was calibrated.

    Returns:
        Another model, as ``onnx`` has it.
    """
    assert job.calibration is not None
    with tempfile.TemporaryDirectory() as folder:
        plain = inspect_onnx(write_whole(Path(folder) / "model.onnx", graph.SerializeToString()))
    layers = layers_of(plain, job.source.trace)
    formats = assigned(plain.operators, layers, job.request.plan)
    chosen = job.calibration.ranges(job.request.calibration, percentile=job.request.percentile)
    ranges = onnx_ranges(graph, job.calibration, chosen)
    nodes = integer_nodes(graph, ranges, formats, layers, job.request.target)
    return in_integers(graph, ranges, nodes, job.request.target, reduce_range=job.request.reduce_range)


TARGETS = ("onnxruntime", "tensorrt")

_NOTED = {"onnxruntime": INTEGER_KERNELS, "tensorrt": frozenset(PRODUCTS)}
"""What is noted as integers: what has integer kernels; what TensorRT's guide wants Q/DQ in front of."""


def integer_nodes(
    model: Any, ranges: Mapping[str, Range], formats: Sequence[str], layers: Layers, target: str
) -> set[str]:
    """Return the names of the nodes that are to compute in integers.

    A layer without weights that cannot be in integers as a whole, such as a layer normalization,
    stays in float as a whole: casts inside it cost more than they save.

    Args:
        model: The float graph.
        ranges: Range of each tensor that has one.
        formats: The number format of each node.
        layers: The layers that each node computes.
        target: One of ``TARGETS``.

    Returns:
        Names of nodes.
    """
    types = onnx_types(model)
    constants = {each.name for each in model.graph.initializer}
    able: dict[str, bool] = {}
    parts: dict[tuple[str, ...], list[Any]] = defaultdict(list)
    for node, precision, owners in zip(model.graph.node, formats, layers, strict=True):
        floats = [
            name for name in (*node.input, *node.output) if types.get(name) == "float32" and name not in constants
        ]
        known = all(name in ranges for name in floats)
        able[node.name] = precision == "int8" and node.op_type in _NOTED[target] and known
        parts[owners].append(node)
    if target == "onnxruntime":
        for owners, nodes in parts.items():
            weighted = any(node.op_type in PRODUCTS or node.input[0] in constants for node in nodes)
            computing = [node for node in nodes if types.get(node.output[0]) == "float32"]
            if owners and not weighted and not all(able[node.name] for node in computing):
                able.update(dict.fromkeys((node.name for node in nodes), False))
    return {name for name, yes in able.items() if yes}


def in_integers(
    model: Any, ranges: Mapping[str, Range], nodes: Collection[str], target: str, *, reduce_range: bool = False
) -> Any:
    """Return a graph that notes, by QuantizeLinear and DequantizeLinear, which nodes compute in integers.

    Weights are int8, symmetric, with a scale for each output channel. For ONNX Runtime, activations
    are uint8 with a zero point and biases int32; for TensorRT, activations are symmetric, biases stay
    in float, and each weight has a Q/DQ pair that the builder folds.

    Args:
        model: The float graph.
        ranges: Range of each tensor that has one.
        nodes: Names of the nodes.
        target: One of ``TARGETS``.
        reduce_range: Whether weights have 7 bits.

    Returns:
        Another model.
    """
    onnx = require("onnx", extra="onnx")
    with captured("onnxruntime"):
        tools = require("onnxruntime.quantization", extra="onnx")
        data = require("onnxruntime.quantization.calibrate", extra="onnx")
        quantizer = require("onnxruntime.quantization.qdq_quantizer", extra="onnx").QDQQuantizer
        ends = {
            name: data.TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in ranges.items()
        }
        strict = target == "tensorrt"
        kinds = tools.QuantType
        made = quantizer(
            onnx.shape_inference.infer_shapes(model),
            True,  # a scale for each channel
            reduce_range,
            kinds.QInt8,
            kinds.QInt8 if strict else kinds.QUInt8,  # twice as fast on x86, where products are of u8 and s8
            data.TensorsData(data.CalibrationMethod.MinMax, ends),
            list(nodes),
            [],
            sorted({node.op_type for node in model.graph.node if node.name in nodes}),
            {
                "WeightSymmetric": True,
                "ActivationSymmetric": strict,
                "AddQDQPairToWeight": strict,
                "QuantizeBias": not strict,
                "DedicatedQDQPair": strict,
                "OpTypesToExcludeOutputQuantization": list(PRODUCTS) if strict else [],
            },
        )
        if nodes:  # an empty list would stand for all
            made.quantize_model()
            made.model.topological_sort()
        found = made.model.model
    del found.graph.value_info[:]
    return found


def in_float16(model: Any) -> Any:
    """Return a graph that computes in float16, with inputs and outputs of the types that they had.

    Args:
        model: The float graph.

    Returns:
        Another model.
    """
    with captured("onnxruntime"):
        convert = require("onnxruntime.transformers.float16", extra="onnx").convert_float_to_float16
        made = convert(model, keep_io_types=True)
        wrapped = require("onnxruntime.quantization.onnx_model", extra="onnx").ONNXModel(made)
        wrapped.topological_sort()
    del wrapped.model.graph.value_info[:]
    return wrapped.model
