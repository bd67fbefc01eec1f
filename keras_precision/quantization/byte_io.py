"""Inputs and outputs in uint8, as cameras give them, of a file that computes in int8."""

from typing import Any

from keras_precision.core.errors import ExportError
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["with_byte_io"]


def with_byte_io(content: bytes) -> bytes:
    """Return a file with inputs and outputs in uint8 in place of float32, in the scales of the integers behind them.

    They are those integers plus 128, as with ``inference_input_type=tf.uint8`` of TFLiteConverter. Raises ExportError where
    an operator computes an input or output in float.
    """
    graph = Flatbuffer(content)
    writers = {int(number): operator for operator in graph.operators for number in operator.outputs}
    for number in filter(graph.is_float, graph.inputs):
        readers = [operator for operator in graph.operators if number in map(int, operator.inputs)]
        integers = {
            graph.dtype(int(operator.outputs[0])) for operator in readers if graph.kernel(operator) == "QUANTIZE"
        }
        if integers != {"int8"} or not all(graph.kernel(operator) == "QUANTIZE" for operator in readers):
            raise _in_float("input", graph, number)
        graph.store_as_bytes(number, int(readers[0].outputs[0]))
    for number in filter(graph.is_float, graph.outputs):
        writer: Any = writers.get(number)
        if writer is None or graph.kernel(writer) != "DEQUANTIZE" or graph.dtype(int(writer.inputs[0])) != "int8":
            raise _in_float("output", graph, number)
        graph.store_as_bytes(number, int(writer.inputs[0]))
        graph.requantize(writer)
    return graph.content()


def _in_float(end: str, graph: Flatbuffer, number: int) -> ExportError:
    return ExportError(
        f"Expected {end}s that the file computes with in int8, for io='uint8'. Received: the {end} '{graph.name(number)}' of an "
        "operator in float32. Export with io='float32', or give the layers there int8."
    )
