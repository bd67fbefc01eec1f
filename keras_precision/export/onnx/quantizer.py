"""An ONNX graph in integers: onnxruntime's quantizer, with ranges from a calibration."""

import tempfile
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.files import write_atomic
from keras_precision.core.system.optional import require
from keras_precision.export.onnx.ranges import onnx_ranges
from keras_precision.export.toolchain import ExportJob
from keras_precision.quantization.format_assignment import assign_formats
from keras_precision.quantization.layer_trace import OperatorLayers, layers_of
from keras_precision.runtimes.onnx import inspect_onnx, onnx_types
from keras_precision.runtimes.onnx_operators import INTEGER_KERNELS, PRODUCTS

__all__ = ["TARGETS", "in_float16", "in_integers", "integer_nodes", "quantized_graph"]


def quantized_graph(graph: Any, job: ExportJob, target: str = "onnxruntime", *, reduce_range: bool) -> Any:
    """Return the float graph of a calibrated export in the number formats of its plan."""
    assert job.calibration is not None
    with tempfile.TemporaryDirectory() as folder:
        plain = inspect_onnx(write_atomic(Path(folder) / "model.onnx", graph.SerializeToString()))
    layers = layers_of(plain, job.source.trace)
    formats = assign_formats(plain.operators, layers, job.request.plan)
    chosen = job.calibration.ranges(job.request.calibration, percentile=job.request.percentile)
    ranges = onnx_ranges(graph, job.calibration, chosen)
    nodes = integer_nodes(graph, ranges, formats, layers, target)
    return in_integers(graph, ranges, nodes, target, reduce_range=reduce_range)


TARGETS = ("onnxruntime", "tensorrt")

_MARKED = {"onnxruntime": INTEGER_KERNELS, "tensorrt": frozenset(PRODUCTS)}
"""Kernels that are marked as integers: those with integer kernels; those before which TensorRT's guide has Q/DQ."""


def integer_nodes(
    model: Any, ranges: Mapping[str, Range], formats: Sequence[str], layers: OperatorLayers, target: str
) -> set[str]:
    """Return the names of the nodes that are to compute in integers.

    A layer without weights that cannot be in integers as a whole, such as a layer normalization, stays in float as a
    whole: casts inside it cost more than they save.
    """
    types = onnx_types(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    able: dict[str, bool] = {}
    parts: dict[tuple[str, ...], list[Any]] = defaultdict(list)
    for node, precision, owners in zip(model.graph.node, formats, layers, strict=True):
        floats = [
            name for name in (*node.input, *node.output) if types.get(name) == "float32" and name not in constants
        ]
        known = all(name in ranges for name in floats)
        able[node.name] = precision == "int8" and node.op_type in _MARKED[target] and known
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
    """Return a copy of a float graph in which QuantizeLinear and DequantizeLinear mark the nodes that compute in integers.

    Weights are int8, symmetric, with a scale per output channel. For ONNX Runtime, activations are uint8 with a zero point
    and biases int32; for TensorRT, activations are symmetric, biases stay in float, and all weights have a Q/DQ pair that
    the builder folds.
    """
    onnx = require("onnx", extra="onnx")
    with capture_output("onnxruntime"):
        tools = require("onnxruntime.quantization", extra="onnx")
        data = require("onnxruntime.quantization.calibrate", extra="onnx")
        quantizer = require("onnxruntime.quantization.qdq_quantizer", extra="onnx").QDQQuantizer
        ends = {
            name: data.TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in ranges.items()
        }
        strict = target == "tensorrt"
        kinds = tools.QuantType
        wrapped = quantizer(
            onnx.shape_inference.infer_shapes(model),
            True,  # a scale per channel
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
            wrapped.quantize_model()
            wrapped.model.topological_sort()
        quantized = wrapped.model.model
    del quantized.graph.value_info[:]
    return quantized


def in_float16(model: Any) -> Any:
    """Return a graph that computes in float16, with inputs and outputs of their former types."""
    with capture_output("onnxruntime"):
        convert = require("onnxruntime.transformers.float16", extra="onnx").convert_float_to_float16
        converted = convert(model, keep_io_types=True)
        wrapped = require("onnxruntime.quantization.onnx_model", extra="onnx").ONNXModel(converted)
        wrapped.topological_sort()
    del wrapped.model.graph.value_info[:]
    return wrapped.model
