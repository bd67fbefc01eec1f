"""Post-training quantization of a float file with calibrated ranges, by one of two engines."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from keras_precision.core.errors import ExportError
from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.formats.deployment import DEPLOYMENT_PRECISIONS
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.optional import require
from keras_precision.quantization.bias_range import raise_weight_scales, set_weights
from keras_precision.quantization.format_assignment import weight_precision
from keras_precision.quantization.weight_rounding import RoundedWeights
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer, parse_flatbuffer

__all__ = ["Engine", "QuantizationJob", "quantize_by_aeq", "quantize_by_converter"]

Engine = Literal["aeq", "converter"]


@dataclass(frozen=True)
class QuantizationJob:
    """A float file to quantize.

    Attributes:
        content: The file.
        formats: The deployment precision of every operator.
        ranges: Name of an activation to its range.
        io: Element type of inputs and outputs.
        notes: What a reader of the file should know.
        weights: Operators whose weights are rounded, to their integers; those of others are rounded to the nearest.
        per_channel: Whether dense layers have one scale for each output, as all other layers with weights do.
    """

    content: bytes
    formats: Sequence[str]
    ranges: Mapping[str, Range]
    io: str
    notes: tuple[str, ...] = ()
    weights: Mapping[int, RoundedWeights] = field(default_factory=dict)
    per_channel: bool = True


def quantize_by_aeq(job: QuantizationJob) -> bytes:
    """Quantize with AI Edge Quantizer, in any deployment precision; ExportError if it fails.

    An operator without an integer form in the quantizer stays in float.
    """
    module = require("ai_edge_quantizer.quantizer", extra="tflite")
    types = require("ai_edge_quantizer.qtyping", extra="tflite")
    graph = parse_flatbuffer(job.content)
    statistics = {
        name: {
            end: np.full((1,) * graph.rank(number), value, np.float32)
            for end, value in zip(("min", "max"), bounds, strict=True)
        }
        for number in graph.activations()
        if (bounds := job.ranges.get(name := graph.name(number))) is not None
    }
    with capture_output("AI Edge Quantizer"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its interpreter warns of its own memory use
        try:
            quantizer = module.Quantizer(bytearray(job.content))
            _add_rules(quantizer, types, graph, job)
            result = quantizer.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
            quantized = Flatbuffer(bytes(result.quantized_model))
        except (ValueError, RuntimeError, KeyError, IndexError, NotImplementedError, TypeError) as error:
            raise ExportError(
                f"Expected AI Edge Quantizer to quantize the file. Received: {type(error).__name__}: {error}"
            ) from error
    set_weights(quantized, graph, job.weights)
    raise_weight_scales(quantized, graph)
    quantized.restore_float_outputs()
    quantized.lower_unread_outputs()
    quantized.set_scales_of_copies(job.ranges)
    return quantized.content()


def quantize_by_converter(job: QuantizationJob) -> bytes:
    """Quantize with the quantizer inside TFLiteConverter, in int8 and float32; ExportError if it fails.

    An operator without an integer kernel stays in float.
    """
    others = sorted(set(job.formats) - {"int8", "float32"})
    if others:
        raise ExportError(
            f"Expected operators in int8 or float32, which TFLiteConverter's quantizer can mix. Received: {', '.join(others)}. "
            "Export with engine='aeq'."
        )
    tensorflow = require("tensorflow", extra="tensorflow")
    # mlir_quantize is not public; TFLiteConverter calls it, too:
    # https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/lite/python/convert.py.
    convert = require("tensorflow.lite.python.convert", extra="tensorflow")
    graph = Flatbuffer(job.content)
    graph.set_ranges(job.ranges)
    float_tensors = {
        graph.name(int(number))
        for operator, precision in zip(graph.operators, job.formats, strict=True)
        for number in operator.outputs
        if precision == "float32"
    }
    side = tensorflow.int8 if job.io == "int8" else tensorflow.float32
    with capture_output("TFLiteConverter"):
        try:
            quantized: bytes = convert.mlir_quantize(
                graph.content(),
                input_data_type=side,
                output_data_type=side,
                denylisted_nodes=float_tensors or None,
                disable_per_channel_for_dense_layers=not job.per_channel,
            )
        except (convert.ConverterError, RuntimeError, ValueError) as error:
            first = str(error).strip().partition("\n")[0]
            raise ExportError(
                f"Expected TFLiteConverter's quantizer to quantize the file. Received: {type(error).__name__}: {first}"
            ) from error
    return _with_weights(bytes(quantized), graph, job) if job.weights else bytes(quantized)


def _with_weights(content: bytes, graph: Flatbuffer, job: QuantizationJob) -> bytes:
    """Return the converter's file with the rounded weights of a job."""
    quantized = Flatbuffer(content)
    set_weights(quantized, graph, job.weights)
    raise_weight_scales(quantized, graph)
    return quantized.content()


def _add_rules(quantizer: Any, types: Any, graph: Flatbuffer, job: QuantizationJob) -> None:
    """Add one rule per number format to the quantizer; an operator without a matching rule stays in float."""
    scopes: dict[str, list[str]] = {}
    for operator, precision in zip(graph.operators, job.formats, strict=True):
        outputs = [graph.name(int(number)) for number in operator.outputs if number >= 0]
        scopes.setdefault(weight_precision(graph.kernel(operator), precision), []).append(
            "".join(f"{name};" for name in outputs)
        )
    everything = types.TFLOperationName.ALL_SUPPORTED
    for precision, names in scopes.items():
        regex = f"^(?:{'|'.join(re.escape(name) for name in names)})$"
        bits = DEPLOYMENT_PRECISIONS[precision]
        if bits.needs_ranges:
            quantizer.add_static_config(regex, everything, bits.activation_bits, bits.weight_bits)
            if not job.per_channel:
                dense, granularity = types.TFLOperationName.FULLY_CONNECTED, types.QuantGranularity.TENSORWISE
                quantizer.add_static_config(regex, dense, bits.activation_bits, bits.weight_bits, granularity)
        elif precision == "int8_dynamic":
            quantizer.add_dynamic_config(regex, everything, bits.weight_bits)
        elif precision == "float16":
            quantizer.add_weight_only_config(regex, everything, bits.weight_bits, algorithm_key="float_casting")
    # The scope of an output is that of the operator that writes it, so the rules of inputs and outputs come last.
    for name, numbers in ((types.TFLOperationName.INPUT, graph.inputs), (types.TFLOperationName.OUTPUT, graph.outputs)):
        regex = f"^{re.escape(''.join(f'{graph.name(number)};' for number in numbers))}$"
        if job.io == "float32":
            quantizer.update_quantization_recipe(regex, name, None, "no_quantize")
        else:
            quantizer.add_static_config(regex, name, 16 if job.io == "int16" else 8, 8)
