"""The tables of a ``.tflite`` file, read, changed and written again."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.system.captured_output import captured
from keras_precision.core.system.optional import require

__all__ = ["Flatbuffer", "parsed"]

Array = npt.NDArray[Any]


class Flatbuffer:
    """The main graph of a file: its tensors by number, its operators in order."""

    def __init__(self, content: bytes) -> None:
        self._tools: Any = require("ai_edge_litert.tools.flatbuffer_utils", extra="tflite")
        self._schema: Any = require("ai_edge_litert.schema_py_generated", extra="tflite")
        with captured("flatbuffers"):
            self._model = self._tools.read_model_from_bytearray(bytearray(content))
        self._graph = self._model.subgraphs[0]

    @property
    def operators(self) -> list[Any]:
        """The operators of the main graph, as the schema has them."""
        return list(self._graph.operators)

    @property
    def inputs(self) -> list[int]:
        """The numbers of the tensors that are given."""
        return [int(number) for number in self._graph.inputs]

    @property
    def outputs(self) -> list[int]:
        """The numbers of the tensors that are answered."""
        return [int(number) for number in self._graph.outputs]

    def named_inputs(self) -> dict[str, int]:
        """Return the inputs by the names of the signature."""
        signature = self._model.signatureDefs[0]
        return {each.name.decode(): int(each.tensorIndex) for each in signature.inputs}

    def named_outputs(self) -> dict[str, int]:
        """Return the outputs by the names of the signature."""
        signature = self._model.signatureDefs[0]
        return {each.name.decode(): int(each.tensorIndex) for each in signature.outputs}

    def name(self, tensor: int) -> str:
        """Return the name of a tensor."""
        return str(self._graph.tensors[tensor].name.decode())

    def rank(self, tensor: int) -> int:
        """Return how many axes a tensor has."""
        return len(self.shape(tensor))

    def dtype(self, tensor: int) -> str:
        """Return the element type of a tensor."""
        return _names(self._schema.TensorType)[self._graph.tensors[tensor].type].lower()

    def constant(self, tensor: int) -> Array | None:
        """Return the content of a constant."""
        if tensor < 0 or self._graph.tensors[tensor].type != self._schema.TensorType.FLOAT32:
            return None
        data = self._model.buffers[self._graph.tensors[tensor].buffer].data
        if data is None or len(data) == 0:
            return None
        return np.frombuffer(bytes(data), np.float32).reshape(self.shape(tensor))

    def integers(self, tensor: int) -> list[int] | None:
        """Return the content of a constant of integers, such as the axes of a mean."""
        if tensor < 0 or self._graph.tensors[tensor].type != self._schema.TensorType.INT32:
            return None
        data = self._model.buffers[self._graph.tensors[tensor].buffer].data
        return None if data is None else [int(each) for each in np.frombuffer(bytes(data), np.int32)]

    def fused(self, operator: Any) -> str:
        """Return the activation function that an operator applies to what it writes."""
        number = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        return _names(self._schema.ActivationFunctionType)[number]

    def activations(self) -> list[int]:
        """Return the tensors whose values come from the data: float, and no constants."""
        numbers = self.inputs
        for operator in self._graph.operators:
            numbers += [int(number) for number in operator.outputs]
        return [
            number
            for number in dict.fromkeys(numbers)
            if number >= 0 and self._graph.tensors[number].type == self._schema.TensorType.FLOAT32
        ]

    def read(self) -> set[int]:
        """Return the tensors that an operator reads, or that are answered."""
        return {int(number) for operator in self._graph.operators for number in operator.inputs} | {*self.outputs}

    def kernel(self, operator: Any) -> str:
        """Return what an operator computes."""
        code = self._model.operatorCodes[operator.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        return _names(self._schema.BuiltinOperator).get(number, "CUSTOM")

    def set_constant(self, tensor: int, values: Array) -> None:
        """Replace the content of a constant, and of it alone."""
        buffer = self._schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values, np.float32).tobytes(), np.uint8)
        held = self._graph.tensors[tensor]
        if self._holders(held.buffer) == 1:  # what nobody reads would stay in the file
            self._model.buffers[held.buffer] = buffer
            return
        held.buffer = len(self._model.buffers)
        self._model.buffers.append(buffer)

    def _holders(self, buffer: int) -> int:
        """How many tensors and entries of metadata have their content in a buffer."""
        held = [each for graph in self._model.subgraphs for each in graph.tensors]
        return sum(int(each.buffer) == buffer for each in (*held, *(self._model.metadata or ())))

    def set_ranges(self, ranges: Mapping[str, Range]) -> None:
        """Note the range of each activation where TensorFlow Lite's own quantizer looks for it."""
        for number in self.activations():
            low, high = ranges.get(self.name(number), (None, None))
            if low is not None and high is not None:
                found = self._schema.QuantizationParametersT()
                found.min, found.max = np.array([low], np.float32), np.array([high], np.float32)
                self._graph.tensors[number].quantization = found

    def scales(self) -> dict[str, tuple[float, int]]:
        """Return how each activation is quantized."""
        written = [int(number) for operator in self._graph.operators for number in operator.outputs if number >= 0]
        found = {}
        for number in (*self.inputs, *written):
            quantization = self._graph.tensors[number].quantization
            if quantization is not None and quantization.scale is not None and len(quantization.scale) == 1:
                found[self.name(number)] = (float(quantization.scale[0]), int(quantization.zeroPoint[0]))
        return found

    def lower_unread_outputs(self) -> None:
        """Give an output that nobody reads the type of its siblings.

        AI Edge Quantizer leaves it in float, and the operator (a SPLIT, say) with two types, which
        delegates refuse.
        """
        tensors, read = self._graph.tensors, self.read()
        for operator in self._graph.operators:
            outputs = [int(number) for number in operator.outputs if number >= 0]
            lowered = [
                tensors[number]
                for number in outputs
                if tensors[number].quantization is not None and tensors[number].quantization.scale is not None
            ]
            for number in outputs:
                if lowered and number not in read and tensors[number].type == self._schema.TensorType.FLOAT32:
                    tensors[number].type, tensors[number].quantization = lowered[0].type, lowered[0].quantization

    def set_scales_of_copies(self, ranges: Mapping[str, Range]) -> None:
        """Give an int8 copy of an int16 tensor the range of that tensor, zero point and all.

        AI Edge Quantizer derives it from the scale of the int16 values, which is symmetric: a
        softmax, say, would lose half of its steps.
        """
        tensors, types = self._graph.tensors, self._schema.TensorType
        for operator in self._graph.operators:
            source, copy = tensors[int(operator.inputs[0])], tensors[int(operator.outputs[0])]
            found = ranges.get(source.name.decode())
            if self.kernel(operator) != "QUANTIZE" or found is None or found[0] == found[1]:
                continue
            if (source.type, copy.type) == (types.INT16, types.INT8):
                scale = (found[1] - found[0]) / 255
                copy.quantization.scale = np.array([scale], np.float32)
                copy.quantization.zeroPoint = np.array([round(-128 - found[0] / scale)], np.int64)

    def metadata(self) -> Iterator[tuple[str, bytes]]:
        """Yield what the file carries beside its graph."""
        for entry in self._model.metadata or ():
            data = self._model.buffers[entry.buffer].data
            yield entry.name.decode(), b"" if data is None else bytes(data)

    def set_metadata(self, name: str, content: bytes) -> None:
        """Put an entry beside the graph; runtimes pass over it."""
        buffer, entry = self._schema.BufferT(), self._schema.MetadataT()
        buffer.data = np.frombuffer(content, np.uint8)
        entry.name, entry.buffer = name.encode(), len(self._model.buffers)
        self._model.buffers.append(buffer)
        others = [each for each in self._model.metadata or () if each.name != entry.name]
        self._model.metadata = [*others, entry]

    def content(self) -> bytes:
        """Return the file's content."""
        for buffer in self._model.buffers:  # the schema packs anything but arrays byte by byte, in Python
            if buffer.data is not None and not isinstance(buffer.data, np.ndarray):
                buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)
        with captured("flatbuffers"):
            return bytes(self._tools.convert_object_to_bytearray(self._model))

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        shape = self._graph.tensors[tensor].shape
        return () if shape is None else tuple(int(size) for size in shape)


@functools.lru_cache(maxsize=8)
def parsed(content: bytes) -> Flatbuffer:
    """Return a file that is only to be read: the same for the same content."""
    return Flatbuffer(content)


@functools.cache
def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}
