"""The tables of a ``.tflite`` file, read, changed and serialized."""

import copy
import functools
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import FileFormatError
from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.optional import require

__all__ = ["Flatbuffer", "QuantizedConstant", "parse_flatbuffer"]

Array = npt.NDArray[Any]

_MATRIX = 2  # axes
_INTEGERS = ("int4", "int8", "int16", "int32", "int64")
_STORED = ("float32", "float16", "int8", "uint8", "int16", "int32", "int64", "bool")


class QuantizedConstant(NamedTuple):
    """Integers of a constant, their scales, and the axis along which there is a scale each, if there are several."""

    values: Array
    scales: Array
    axis: int

    def reals(self) -> Array:
        """Return the numbers that the integers stand for."""
        shape = [1] * self.values.ndim
        shape[self.axis if self.scales.size > 1 else 0] = self.scales.size
        return np.asarray(self.values * self.scales.reshape(shape), np.float32)


class Flatbuffer:
    """The main graph of a file: its tensors by index, its operators in order."""

    def __init__(self, content: bytes) -> None:
        self._tools: Any = require("ai_edge_litert.tools.flatbuffer_utils", extra="tflite")
        self._schema: Any = require("ai_edge_litert.schema_py_generated", extra="tflite")
        try:
            with capture_output("flatbuffers"):
                self._model = self._tools.read_model_from_bytearray(bytearray(content))
            self._graph = self._model.subgraphs[0]
        except (AttributeError, LookupError, OverflowError, TypeError, ValueError, struct.error) as error:
            raise _damaged(f"{type(error).__name__}: {error}") from error

    def check(self) -> None:
        """Raise ``FileFormatError`` if a table refers to what the file does not have: interpreters do not look."""
        model = self._model
        for graph in model.subgraphs:
            tensors, operators = graph.tensors or [], graph.operators or []
            for tensor in tensors:
                _check_index(tensor.buffer, model.buffers, "a buffer")
                if not isinstance(tensor.name, bytes) or tensor.type not in _names(self._schema.TensorType):
                    raise _damaged("a tensor without a name or a dtype")
            for operator in operators:
                _check_index(operator.opcodeIndex, model.operatorCodes, "a kernel")
            for numbers in (graph.inputs, graph.outputs, *(operator.outputs for operator in operators)):
                _check_indices(numbers, tensors, optional=False)
            for operator in operators:
                _check_indices(operator.inputs, tensors, optional=True)
        for signature in model.signatureDefs or ():
            _check_index(signature.subgraphIndex, model.subgraphs, "a graph")
            for entry in (*(signature.inputs or ()), *(signature.outputs or ())):
                _check_index(entry.tensorIndex, model.subgraphs[signature.subgraphIndex].tensors, "a tensor")
                if not isinstance(entry.name, bytes):
                    raise _damaged("a signature with a tensor that has no name")
        for number in range(len(self._graph.tensors)):
            self._check_constant(number)

    def _check_constant(self, tensor: int) -> None:
        """Raise if a constant of the main graph has other bytes than its shape and dtype say."""
        data = self._model.buffers[self._graph.tensors[tensor].buffer].data
        dtype, count = self.dtype(tensor), math.prod(self.shape(tensor))
        if data is None or len(data) == 0 or dtype not in _STORED:
            return
        if len(data) != count * np.dtype(dtype).itemsize:
            raise _damaged(f"a constant of shape {self.shape(tensor)} and {dtype} in {len(data)} bytes")

    @property
    def operators(self) -> list[Any]:
        """The operators of the main graph, as objects of the schema."""
        return list(self._graph.operators)

    @property
    def inputs(self) -> list[int]:
        """The indices of the input tensors."""
        return [int(number) for number in self._graph.inputs]

    @property
    def outputs(self) -> list[int]:
        """The indices of the output tensors."""
        return [int(number) for number in self._graph.outputs]

    def named_inputs(self) -> dict[str, int]:
        """Return the names of the inputs in the signature, to the indices of their tensors."""
        signature = self._model.signatureDefs[0]
        return {entry.name.decode(): int(entry.tensorIndex) for entry in signature.inputs}

    def named_outputs(self) -> dict[str, int]:
        """Return the names of the outputs in the signature, to the indices of their tensors."""
        signature = self._model.signatureDefs[0]
        return {entry.name.decode(): int(entry.tensorIndex) for entry in signature.outputs}

    def name(self, tensor: int) -> str:
        """Return the name of a tensor."""
        return str(self._graph.tensors[tensor].name.decode())

    def rank(self, tensor: int) -> int:
        """Return the number of axes of a tensor."""
        return len(self.shape(tensor))

    def dtype(self, tensor: int) -> str:
        """Return NumPy's name of the dtype of a tensor."""
        return _names(self._schema.TensorType)[self._graph.tensors[tensor].type].lower()

    def constant(self, tensor: int) -> Array | None:
        """Return the values of a constant in float32; None if it is none, or for -1, an operand that is left out."""
        if tensor < 0 or self._graph.tensors[tensor].type != self._schema.TensorType.FLOAT32:
            return None
        data = self._model.buffers[self._graph.tensors[tensor].buffer].data
        if data is None or len(data) == 0:
            return None
        return np.frombuffer(bytes(data), np.float32).reshape(self.shape(tensor))

    def integers(self, tensor: int) -> list[int] | None:
        """Return the values of a constant of 32-bit integers, such as the axes of a mean; None if it is none."""
        if tensor < 0 or self._graph.tensors[tensor].type != self._schema.TensorType.INT32:
            return None
        data = self._model.buffers[self._graph.tensors[tensor].buffer].data
        return None if data is None else [int(value) for value in np.frombuffer(bytes(data), np.int32)]

    def fused(self, operator: Any) -> str:
        """Return the activation function that is fused into an operator, such as ``RELU``; ``NONE`` if there is none."""
        number = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        return _names(self._schema.ActivationFunctionType)[number]

    def activations(self) -> list[int]:
        """Return the float tensors that are no constants: inputs first, then in the order in which they are computed."""
        numbers = self.inputs
        for operator in self._graph.operators:
            numbers += [int(number) for number in operator.outputs]
        return [number for number in dict.fromkeys(numbers) if self.is_float(number)]

    def is_float(self, tensor: int) -> bool:
        """Return whether a tensor is there, and has values in float32."""
        return tensor >= 0 and bool(self._graph.tensors[tensor].type == self._schema.TensorType.FLOAT32)

    def exact_inputs(self) -> list[int]:
        """Return the inputs in float whose whole numbers operators read, such as the tokens of an embedding."""
        return [
            number
            for number in self.inputs
            if self.is_float(number)
            and any(
                number in map(int, operator.inputs)
                and not any(self.is_float(int(output)) for output in operator.outputs)
                for operator in self._graph.operators
            )
        ]

    def read(self) -> set[int]:
        """Return the tensors that an operator reads, or that are outputs."""
        return {int(number) for operator in self._graph.operators for number in operator.inputs} | {*self.outputs}

    def kernel(self, operator: Any) -> str:
        """Return the kernel of an operator, such as ``CONV_2D``."""
        code = self._model.operatorCodes[operator.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        return _names(self._schema.BuiltinOperator).get(number, "CUSTOM")

    def set_constant(self, tensor: int, values: Array) -> None:
        """Replace the values of a constant, and not those of others that share its buffer."""
        self._set_data(tensor, np.asarray(values, np.float32))

    def scale(self, tensor: int) -> float | None:
        """Return the scale of a tensor of integers with one scale; None for any other."""
        scales = self._scales(tensor)
        return float(scales[0]) if scales is not None and scales.size == 1 and self.dtype(tensor) in _INTEGERS else None

    def quantized_constant(self, tensor: int) -> QuantizedConstant | None:
        """Return the integers of a quantized constant; None if it is none, or for -1, an operand that is left out."""
        if tensor < 0 or (scales := self._scales(tensor)) is None or self.dtype(tensor) not in _INTEGERS:
            return None
        entry = self._graph.tensors[tensor]
        data = self._model.buffers[entry.buffer].data
        if data is None or len(data) == 0:
            return None
        shape = self.shape(tensor)
        flat = _unpacked(bytes(data), self.dtype(tensor), math.prod(shape))
        return QuantizedConstant(flat.reshape(shape), scales, int(entry.quantization.quantizedDimension))

    def set_quantized_constant(self, tensor: int, constant: QuantizedConstant) -> None:
        """Replace the integers and scales of a constant, and not those of others that share its buffer."""
        entry = self._graph.tensors[tensor]
        self._set_data(tensor, _packed(constant.values, self.dtype(tensor)))
        entry.quantization = copy.copy(entry.quantization)  # an object that other tensors may have, too
        entry.quantization.scale = constant.scales.astype(np.float32)

    def own_constant(self, operators: Sequence[Any], position: int) -> int:
        """Return the tensor that is an operand of some operators, which becomes a copy first where others have it, too."""
        tensor = int(operators[0].inputs[position])
        if sum(int(number) == tensor for other in self.operators for number in other.inputs) > len(operators):
            entry = copy.copy(self._graph.tensors[tensor])
            entry.name += f"_{len(self._graph.tensors)}".encode()
            tensor = self._add_tensor(entry, operators, position)
        return tensor

    def add_constant(self, operator: Any, position: int, values: Array) -> None:
        """Give an operator a constant for an operand that it does not have."""
        entry = self._schema.TensorT()
        entry.name = f"constant_{len(self._graph.tensors)}".encode()
        entry.shape, entry.type = np.array(values.shape, np.int32), self._schema.TensorType.FLOAT32
        entry.buffer = 0  # which is empty in every file
        self.set_constant(self._add_tensor(entry, [operator], position), values)

    def _add_tensor(self, entry: Any, operators: Sequence[Any], position: int) -> int:
        number = len(self._graph.tensors)
        self._graph.tensors.append(entry)
        for operator in operators:  # the operands may be a view of the file, and an operator shorter than its schema
            operands = [*map(int, operator.inputs), *(-1 for _ in range(position + 1 - len(operator.inputs)))]
            operands[position] = number
            operator.inputs = operands
        return number

    def _scales(self, tensor: int) -> Array | None:
        quantization = self._graph.tensors[tensor].quantization
        if quantization is None or quantization.scale is None or len(quantization.scale) == 0:
            return None
        return np.asarray(quantization.scale, np.float64)

    def _set_data(self, tensor: int, data: Array) -> None:
        buffer = self._schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        entry = self._graph.tensors[tensor]
        if self._users(entry.buffer) == 1:  # an unused buffer would stay in the file
            self._model.buffers[entry.buffer] = buffer
            return
        entry.buffer = len(self._model.buffers)
        self._model.buffers.append(buffer)

    def _users(self, buffer: int) -> int:
        """The number of tensors and metadata entries that use a buffer."""
        tensors = [tensor for graph in self._model.subgraphs for tensor in graph.tensors]
        return sum(int(entry.buffer) == buffer for entry in (*tensors, *(self._model.metadata or ())))

    def set_ranges(self, ranges: Mapping[str, Range]) -> None:
        """Write the ranges of activations, by name, where TensorFlow Lite's own quantizer reads them."""
        for number in self.activations():
            low, high = ranges.get(self.name(number), (None, None))
            if low is not None and high is not None:
                parameters = self._schema.QuantizationParametersT()
                parameters.min, parameters.max = np.array([low], np.float32), np.array([high], np.float32)
                self._graph.tensors[number].quantization = parameters

    def scales(self) -> dict[str, tuple[float, int]]:
        """Return name to scale and zero point of the inputs and activations that are quantized per tensor."""
        written = [int(number) for operator in self._graph.operators for number in operator.outputs if number >= 0]
        scales = {}
        for number in (*self.inputs, *written):
            quantization = self._graph.tensors[number].quantization
            if quantization is not None and quantization.scale is not None and len(quantization.scale) == 1:
                scales[self.name(number)] = (float(quantization.scale[0]), int(quantization.zeroPoint[0]))
        return scales

    def lower_unread_outputs(self) -> None:
        """Give unread outputs of an operator the dtype and quantization of its other outputs.

        AI Edge Quantizer leaves them in float, and delegates refuse an operator (such as SPLIT) with two dtypes.
        """
        tensors, read = self._graph.tensors, self.read()
        for operator in self._graph.operators:
            outputs = [int(number) for number in operator.outputs if number >= 0]
            quantized = [
                tensors[number]
                for number in outputs
                if tensors[number].quantization is not None and tensors[number].quantization.scale is not None
            ]
            for number in outputs:
                if quantized and number not in read and tensors[number].type == self._schema.TensorType.FLOAT32:
                    tensors[number].type, tensors[number].quantization = quantized[0].type, quantized[0].quantization

    def restore_float_outputs(self) -> None:
        """Make outputs what the signature has, where a quantized copy for other readers has taken the place of one.

        AI Edge Quantizer does that where the output of a float operator is both an output of the file and an input of integers.
        """
        outputs = {self.name(number): position for position, number in enumerate(self.outputs)}
        for number in self.named_outputs().values():
            position = outputs.get(f"{self.name(number)}_quantized")
            if number not in self.outputs and position is not None:
                self._graph.outputs = [*self._graph.outputs]
                self._graph.outputs[position] = number

    def set_scales_of_copies(self, ranges: Mapping[str, Range]) -> None:
        """Give int8 copies of int16 tensors the ranges of those, by name, with a zero point.

        AI Edge Quantizer derives their scales from the symmetric ones of the int16 tensors, with which an output of a
        softmax would lose half of its steps.
        """
        tensors, types = self._graph.tensors, self._schema.TensorType
        for operator in self._graph.operators:
            source, copy = tensors[int(operator.inputs[0])], tensors[int(operator.outputs[0])]
            low, high = ranges.get(source.name.decode(), (0.0, 0.0))
            if self.kernel(operator) != "QUANTIZE" or low == high:
                continue
            if (source.type, copy.type) == (types.INT16, types.INT8):
                scale = (high - low) / 255
                copy.quantization.scale = np.array([scale], np.float32)
                copy.quantization.zeroPoint = np.array([round(-128 - low / scale)], np.int64)

    def store_as_bytes(self, tensor: int, integers: int) -> None:
        """Give a tensor the dtype uint8, and the values of another tensor in int8, each plus 128."""
        entry, source = self._graph.tensors[tensor], self._graph.tensors[integers]
        entry.type, entry.quantization = self._schema.TensorType.UINT8, copy.copy(source.quantization)
        entry.quantization.zeroPoint = np.array([int(source.quantization.zeroPoint[0]) + 128], np.int64)

    def requantize(self, operator: Any) -> None:
        """Make an operator that turns integers into floats one that turns them into integers of its output."""
        operator.opcodeIndex = self._opcode("QUANTIZE")
        operator.builtinOptionsType = self._schema.BuiltinOptions.QuantizeOptions
        operator.builtinOptions = self._schema.QuantizeOptionsT()

    def flatten_dense_inputs(self) -> None:
        """Put a RESHAPE in front of each FULLY_CONNECTED that flattens its input itself, in all graphs of the file."""
        for graph in self._model.subgraphs:
            for operator in list(graph.operators):
                shape = graph.tensors[operator.inputs[0]].shape
                matrix = shape is None or len(shape) == _MATRIX
                if (
                    not matrix
                    and self.kernel(operator) == "FULLY_CONNECTED"
                    and not operator.builtinOptions.keepNumDims
                ):
                    self._flatten_input(graph, operator)

    def _flatten_input(self, graph: Any, operator: Any) -> None:
        """Give an operator its first input as rows that its weights fit."""
        source, width = graph.tensors[operator.inputs[0]], int(graph.tensors[operator.inputs[1]].shape[-1])
        flat, reshape = copy.copy(source), self._schema.OperatorT()
        flat.name, flat.shapeSignature = source.name + b"/flat", None
        flat.shape = np.array([math.prod(map(int, source.shape)) // width, width], np.int32)
        graph.tensors.append(flat)
        reshape.opcodeIndex = self._opcode("RESHAPE")
        reshape.inputs, reshape.outputs = [operator.inputs[0]], [len(graph.tensors) - 1]
        reshape.builtinOptionsType = self._schema.BuiltinOptions.ReshapeOptions
        reshape.builtinOptions = self._schema.ReshapeOptionsT()
        reshape.builtinOptions.newShape = flat.shape
        operator.inputs = [reshape.outputs[0], *operator.inputs[1:]]
        graph.operators.insert(graph.operators.index(operator), reshape)

    def _opcode(self, kernel: str) -> int:
        """The index of a kernel in the file's list of those that it uses; added where it is new."""
        number = getattr(self._schema.BuiltinOperator, kernel)
        codes = self._model.operatorCodes
        used = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in codes]
        if number not in used:
            code = self._schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = number
            codes.append(code)
            used.append(number)
        return used.index(number)

    def before(self, number: int, tensor: int) -> "Flatbuffer":
        """Return a file of the operators before one, whose output is a tensor; it shares its constants with this one."""
        part = copy.copy(self)
        part._model, part._graph = copy.copy(self._model), copy.copy(self._graph)
        part._graph.operators, part._graph.outputs = self._graph.operators[:number], [tensor]
        part._model.subgraphs = [part._graph, *self._model.subgraphs[1:]]
        signature, output = copy.copy(self._model.signatureDefs[0]), copy.copy(self._model.signatureDefs[0].outputs[0])
        output.tensorIndex, signature.outputs = tensor, [output]
        part._model.signatureDefs = [signature]
        return part

    def metadata(self) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of the metadata entries."""
        for entry in self._model.metadata or ():
            data = self._model.buffers[entry.buffer].data
            yield entry.name.decode(), b"" if data is None else bytes(data)

    def set_metadata(self, name: str, content: bytes) -> None:
        """Add or replace a metadata entry; runtimes ignore it."""
        buffer, entry = self._schema.BufferT(), self._schema.MetadataT()
        buffer.data = np.frombuffer(content, np.uint8)
        entry.name, entry.buffer = name.encode(), len(self._model.buffers)
        self._model.buffers.append(buffer)
        others = [other for other in self._model.metadata or () if other.name != entry.name]
        self._model.metadata = [*others, entry]

    def fix_sizes(self) -> None:
        """Make the sizes of tensors final: those of free axes are 1."""
        for graph in self._model.subgraphs:
            for tensor in graph.tensors:
                tensor.shapeSignature = None

    def content(self) -> bytes:
        """Serialize the file."""
        for buffer in self._model.buffers:  # the schema packs anything but arrays byte by byte, in Python
            if buffer.data is not None and not isinstance(buffer.data, np.ndarray):
                buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)
        with capture_output("flatbuffers"):
            return bytes(self._tools.convert_object_to_bytearray(self._model))

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Return the shape of a tensor as it is in the file."""
        shape = self._graph.tensors[tensor].shape
        return () if shape is None else tuple(int(size) for size in shape)


def _check_indices(numbers: Any, owner: Sequence[Any], *, optional: bool) -> None:
    for number in () if numbers is None else numbers:
        if not (optional and number == -1):
            _check_index(number, owner, "a tensor")


def _check_index(number: int, owner: Sequence[Any] | None, what: str) -> None:
    if owner is None or not 0 <= number < len(owner):
        raise _damaged(f"{what} of number {number}, which the file does not have")


def _damaged(what: str) -> FileFormatError:
    return FileFormatError(
        f"Expected the tables of a TensorFlow Lite file. Received: damaged ones ({what}). Export the model again."
    )


@functools.lru_cache(maxsize=8)
def parse_flatbuffer(content: bytes) -> Flatbuffer:
    """Return the tables of a file, to be read only: the same object for the same content."""
    return Flatbuffer(content)


def _unpacked(data: bytes, dtype: str, count: int) -> Array:
    """Return the integers in a buffer; two of 4 bits share a byte, the first in its lower half."""
    if dtype != "int4":
        return np.frombuffer(data, dtype).astype(np.int64)
    halves = np.frombuffer(data, np.uint8)[:, None] >> np.array([0, 4], np.uint8) & 15
    values = halves.reshape(-1)[:count].astype(np.int64)
    return np.where(values > 7, values - 16, values)


def _packed(values: Array, dtype: str) -> Array:
    """Return the content of a buffer for some integers."""
    if dtype != "int4":
        return values.astype(dtype)
    halves = np.append(values.reshape(-1), np.zeros(values.size % 2, np.int64)).astype(np.uint8) & 15
    return halves[0::2] | halves[1::2] << 4


@functools.cache
def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}
