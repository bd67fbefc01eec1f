"""quantized_graph: the ONNX graph of an export in integers, with the ranges of its calibration."""

import tempfile
from pathlib import Path
from typing import Any

from keras_precision.core.system.files import write_whole
from keras_precision.export.onnx.quantizer import in_integers, integer_nodes
from keras_precision.export.onnx.ranges import onnx_ranges
from keras_precision.export.toolchain import Job
from keras_precision.quantization.format_assignment import assigned
from keras_precision.quantization.layer_trace import layers_of
from keras_precision.runtimes.onnx import inspect_onnx

__all__ = ["quantized_graph"]


def quantized_graph(graph: Any, job: Job) -> Any:
    """Return the graph of an export in the number formats that its plan says.

    Args:
        graph: The float graph.
        job: What is asked for; it was calibrated.

    Returns:
        Another model, as ``onnx`` has it.
    """
    assert job.measured is not None
    with tempfile.TemporaryDirectory() as folder:
        plain = inspect_onnx(write_whole(Path(folder) / "model.onnx", graph.SerializeToString()))
    layers = layers_of(plain, job.source.trace)
    formats = assigned(plain.operators, layers, job.order.plan)
    chosen = job.measured.ranges(job.order.calibration, percentile=job.order.percentile)
    ranges = onnx_ranges(graph, job.measured, chosen)
    nodes = integer_nodes(graph, ranges, formats, layers, job.order.target)
    return in_integers(graph, ranges, nodes, job.order.target, reduce_range=job.order.reduce_range)
