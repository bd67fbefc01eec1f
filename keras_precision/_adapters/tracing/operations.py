"""traced: a model's operations, read from the trace of its framework, without data."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision._adapters.model_view import ModelView
from keras_precision._adapters.tracing.layer_scopes import Scopes
from keras_precision.core.errors import ModelError
from keras_precision.core.operation_graph import Kind, Operation, OperationGraph
from keras_precision.core.system.optional import require

__all__ = ["traced"]

_BATCH, _FREE = 2, 16  # sizes of the batch, and of every other free axis


def traced(view: ModelView, batch_size: int | None = None) -> OperationGraph:
    """Return the operations of the forward pass of a built functional or sequential model, as in training.

    Raises ModelError where a model needs other sizes than those that its inputs leave free.
    """
    count = batch_size or view.batch_size or _BATCH
    arrays = [
        np.zeros((count, *(size or _FREE for size in model_input.shape)), np.dtype(model_input.dtype))
        for model_input in view.inputs
    ]
    scopes = Scopes(view.adapter, view.layers)
    trace = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[view.adapter.compute.name]
    try:
        with np.errstate(all="ignore"):  # overflowing constants are what the rules look for
            return trace(view.adapter, view.model, arrays, scopes)
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        if all(None not in model_input.shape for model_input in view.inputs):
            raise
        raise ModelError(
            f"Expected a model that takes inputs of any size. Received: '{view.name}', which fails on inputs of size {_FREE}: "
            f"{' '.join(str(error).split())[:200]} Give the sizes: input_signature=[keras.InputSpec(shape=(1, ...), dtype=...)]."
        ) from error


class _Recorder:
    """Records operations in order; an operation is known by its index."""

    def __init__(self, scopes: Scopes) -> None:
        self.operations: list[Operation] = []
        self._scopes = scopes

    def add(self, kind: Kind, dtype: str, reads: Sequence[int] = (), **details: Any) -> int:
        self.operations.append(Operation(kind, dtype, tuple(reads), **details))
        return len(self.operations) - 1

    def constant(self, value: Any, dtype: str) -> int:
        return self.add("constant", dtype, value=float(value))


# ---- TensorFlow ----

_TENSORFLOW: Mapping[str, Kind] = {
    "Cast": "cast", "AddV2": "add", "Add": "add", "BiasAdd": "other", "Sub": "sub", "Mul": "mul", "RealDiv": "div", "Neg": "neg",
    "Abs": "abs", "Square": "square", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Rsqrt": "sqrt", "Maximum": "maximum",
    "Minimum": "minimum", "Sum": "sum", "Mean": "mean", "Max": "max", "Softmax": "softmax", "SelectV2": "select", "Select": "select",
    "Placeholder": "input", "AvgPool": "mean", "AvgPool3D": "mean", "Cumsum": "sum",
}  # fmt: skip
_SAME = (
    "Identity",
    "StopGradient",
    "Reshape",
    "ExpandDims",
    "Squeeze",
    "BroadcastTo",
    "Transpose",
    "EnsureShape",
    "PreventGradient",
)


def _tensorflow(adapter: KerasAdapter, model: Any, arrays: Sequence[Any], scopes: Scopes) -> OperationGraph:
    tf = require("tensorflow", extra="tensorflow")
    specs = [tf.TensorSpec(array.shape, array.dtype) for array in arrays]

    def run(*inputs: Any) -> Any:
        with scopes.following(lambda path: tf.name_scope(f"kp{scopes.names.index(path)}")):
            return adapter.call_for_training(model, list(inputs))

    graph = tf.function(run, autograph=False).get_concrete_function(*specs).graph
    recorder = _Recorder(scopes)
    producers: dict[str, int] = {}  # name of a tensor to the index of its operation
    for operation in graph.get_operations():
        if not operation.outputs:
            continue
        index = _tensorflow_operation(tf, recorder, operation, producers, scopes)
        for output in operation.outputs:
            producers[output.name] = index
    return OperationGraph(tuple(recorder.operations), "the graph of a tf.function")


def _tensorflow_operation(
    tf: Any, recorder: _Recorder, operation: Any, producers: Mapping[str, int], scopes: Scopes
) -> int:
    output = operation.outputs[0]
    reads = [producers[tensor.name] for tensor in operation.inputs if tensor.name in producers]
    if operation.type in _SAME and reads:
        return reads[0]
    dtype = output.dtype.base_dtype.name
    if operation.type == "Const":
        value = np.asarray(tf.get_static_value(output))
        if value.dtype.kind in "fV" and value.size and np.all(value == value.flat[0]):
            return recorder.constant(value.flat[0], dtype)
        return recorder.add("other", dtype)
    kind = _TENSORFLOW.get(operation.type, "other")
    if kind == "mul" and len(reads) == 2 and reads[0] == reads[1]:
        kind = "square"
    if kind in ("sum", "mean", "max"):
        reads = reads[:1]  # the others are axes
    layers = re.findall(r"kp(\d+)(?:_\d+)?/", operation.name)  # indices of the layers of the name scopes
    frames = [(frame.filename, frame.name, frame.lineno) for frame in reversed(list(operation.traceback))]
    return recorder.add(
        kind, dtype, reads, path=scopes.names[int(layers[0])] if layers else "", line=Scopes.line_of(frames),
        terms=_tensorflow_terms(tf, operation) if kind in ("sum", "mean") else 1,
    )  # fmt: skip


def _tensorflow_terms(tf: Any, operation: Any) -> int:
    """Return how many numbers are added up to one; those of a product of matrices are added up in 32 bits."""
    if operation.type.startswith("AvgPool"):
        return math.prod(operation.get_attr("ksize"))
    if operation.type == "Cumsum":
        axis = tf.get_static_value(operation.inputs[1])
        return int(operation.inputs[0].shape[int(axis)] or 1) if axis is not None else 1
    return _terms(operation.inputs[0].shape, operation.outputs[0].shape)


def _terms(before: Any, after: Any) -> int:
    sizes = [[int(size) for size in shape if size is not None] for shape in (before, after)]
    return max(1, math.prod(sizes[0]) // max(1, math.prod(sizes[1])))


# ---- JAX ----

_JAX: Mapping[str, Kind] = {
    "convert_element_type": "cast", "add": "add", "add_any": "add", "sub": "sub", "mul": "mul", "div": "div", "neg": "neg", "abs": "abs",
    "square": "square", "exp": "exp", "log": "log", "sqrt": "sqrt", "rsqrt": "sqrt", "max": "maximum", "min": "minimum", "clamp": "minimum",
    "reduce_sum": "sum", "reduce_window_sum": "sum", "reduce_max": "max", "select_n": "select",
}  # fmt: skip
_JAX_SAME = ("broadcast_in_dim", "reshape", "squeeze", "stop_gradient", "copy", "expand_dims", "transpose")


def _jax(adapter: KerasAdapter, model: Any, arrays: Sequence[Any], scopes: Scopes) -> OperationGraph:
    jax = require("jax", extra="jax")

    def run(*inputs: Any) -> Any:
        with scopes.following(lambda path: jax.named_scope(f"kp{scopes.names.index(path)}")):
            return adapter.call_for_training(model, list(inputs))

    closed = jax.make_jaxpr(run)(*arrays)
    reader = _JaxReader(_Recorder(scopes), scopes)
    values = [reader.recorder.add("input", str(variable.aval.dtype)) for variable in closed.jaxpr.invars]
    constants = [reader.recorder.add("other", str(variable.aval.dtype)) for variable in closed.jaxpr.constvars]
    reader.read(closed.jaxpr, [*constants, *values], "")
    return OperationGraph(tuple(reader.recorder.operations), "a jaxpr")


class _JaxReader:
    """Reads a jaxpr and its inner jaxprs."""

    def __init__(self, recorder: _Recorder, scopes: Scopes) -> None:
        self.recorder, self._scopes = recorder, scopes

    def read(self, jaxpr: Any, arguments: Sequence[int], outer: str) -> list[int]:
        """Record the operations of a jaxpr; return the indices of those that produce its outputs."""
        producers = dict(zip([*jaxpr.constvars, *jaxpr.invars], arguments, strict=False))
        for equation in jaxpr.eqns:
            reads = [self._producer(producers, variable) for variable in equation.invars]
            layers = re.findall(r"kp(\d+)", str(equation.source_info.name_stack))
            path = self._scopes.names[int(layers[0])] if layers else outer
            inner = self._inner(equation)
            if inner is not None:
                outputs = self.read(inner, [*[self.recorder.add("other", "") for _ in inner.constvars], *reads], path)
            else:
                outputs = [self._operation(equation, reads, path)] * len(equation.outvars)
            producers |= dict(zip(equation.outvars, outputs, strict=False))
        return [self._producer(producers, variable) for variable in jaxpr.outvars]

    def _inner(self, equation: Any) -> Any:
        """Return the jaxpr that an equation calls once; loops and branches are not entered."""
        if equation.primitive.name in ("scan", "while", "cond"):
            return None
        for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
            inner = equation.params.get(name)
            if inner is not None:
                return getattr(inner, "jaxpr", inner)
        return None

    def _producer(self, producers: dict[Any, int], variable: Any) -> int:
        if hasattr(variable, "val"):  # a literal
            value, dtype = np.asarray(variable.val), str(variable.aval.dtype)
            floating = value.size == 1 and "float" in dtype
            return self.recorder.constant(value.flat[0], dtype) if floating else self.recorder.add("other", dtype)
        if variable not in producers:
            producers[variable] = self.recorder.add("other", str(getattr(variable.aval, "dtype", "")))
        return producers[variable]

    def _operation(self, equation: Any, reads: list[int], path: str) -> int:
        name, output = equation.primitive.name, equation.outvars[0].aval
        dtype = str(getattr(output, "dtype", ""))
        before = self.recorder.operations[reads[0]].dtype if reads else ""
        if name in _JAX_SAME or (name == "convert_element_type" and before == dtype):
            return reads[0]
        kind = _JAX.get(name, "other")
        power = equation.params.get("y") if name == "integer_pow" else None
        if power == 2 or (kind == "mul" and len(reads) == 2 and reads[0] == reads[1]):
            kind = "square"
        traceback = equation.source_info.traceback
        frames = (
            [(frame.file_name, frame.function_name, frame.line_num) for frame in traceback.frames] if traceback else []
        )
        shape = getattr(equation.invars[0].aval, "shape", ()) if equation.invars else ()
        window = equation.params.get("window_dimensions", ()) if kind == "sum" else ()
        return self.recorder.add(
            kind, dtype, reads, path=path, line=Scopes.line_of(frames),
            terms=math.prod(window) if window else _terms(shape, output.shape) if kind == "sum" else 1,
        )  # fmt: skip


# ---- PyTorch ----

_TORCH: Mapping[str, Kind] = {
    "_to_copy": "cast", "add": "add", "sub": "sub", "rsub": "sub", "mul": "mul", "div": "div", "neg": "neg", "abs": "abs", "square": "square",
    "exp": "exp", "log": "log", "sqrt": "sqrt", "rsqrt": "sqrt", "maximum": "maximum", "clamp": "minimum", "clamp_min": "maximum",
    "minimum": "minimum", "sum": "sum", "mean": "mean", "amax": "max", "max": "max", "_softmax": "softmax", "where": "select",
    "_safe_softmax": "softmax", "masked_fill": "select",
}  # fmt: skip
_TORCH_SAME = (
    "view",
    "_unsafe_view",
    "reshape",
    "expand",
    "unsqueeze",
    "squeeze",
    "permute",
    "transpose",
    "t",
    "detach",
    "alias",
    "clone",
    "lift_fresh",
)


def _torch(adapter: KerasAdapter, model: Any, arrays: Sequence[Any], scopes: Scopes) -> OperationGraph:
    torch = require("torch", extra="torch")
    # The documented way to see the operations below autograd, in a module without a public name:
    # https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/_python_dispatch.py
    mode_class = require("torch.utils._python_dispatch", extra="torch").TorchDispatchMode
    recorder = _Recorder(scopes)
    producers: dict[int, int] = {}  # id of a tensor to the index of its operation
    alive: list[Any] = []  # an id is unique only among living objects

    def producer_of(value: Any) -> int:
        if id(value) not in producers:
            alive.append(value)
            is_constant = value.numel() == 1 and value.is_floating_point() and not isinstance(value, torch.nn.Parameter)
            producers[id(value)] = (
                recorder.constant(value.item(), _torch_type(value))
                if is_constant
                else recorder.add("input", _torch_type(value))
            )
        return producers[id(value)]

    class Recording(mode_class):  # type: ignore[misc, valid-type]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = function(*args, **(kwargs or {}))
            outputs = output if isinstance(output, list | tuple) else [output]
            reads = [
                producer_of(operand) if isinstance(operand, torch.Tensor) else recorder.constant(operand, "float32")
                for operand in _operands(torch, args)
            ]
            for tensor in outputs:
                if isinstance(tensor, torch.Tensor):
                    alive.append(tensor)
                    producers[id(tensor)] = _torch_operation(recorder, function, tensor, args, reads, scopes)
            return output

    inputs = [adapter.keras.ops.convert_to_tensor(array) for array in arrays]
    with torch.no_grad(), scopes.following(lambda _: nullcontext()), Recording():
        adapter.call_for_training(model, inputs)
    return OperationGraph(tuple(recorder.operations), "the operations that PyTorch dispatches", accumulates_wide=True)


def _torch_type(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.")


def _operands(torch: Any, args: Sequence[Any]) -> Iterator[Any]:
    for argument in args:
        if isinstance(argument, torch.Tensor) or (isinstance(argument, float | int) and not isinstance(argument, bool)):
            yield argument


def _torch_operation(
    recorder: _Recorder, function: Any, output: Any, args: Sequence[Any], reads: list[int], scopes: Scopes
) -> int:
    name, dtype = function.overloadpacket.__name__, _torch_type(output)
    same_type = bool(reads) and recorder.operations[reads[0]].dtype == dtype
    if (name in _TORCH_SAME or (name == "_to_copy" and same_type)) and reads:
        return reads[0]
    if name in ("scalar_tensor", "full", "full_like", "ones", "zeros"):
        value = args[1] if name.startswith("full") else args[0] if name == "scalar_tensor" else float(name == "ones")
        return recorder.constant(value, dtype) if isinstance(value, float | int) else recorder.add("other", dtype)
    kind = _TORCH.get(name, "other")
    if (name == "pow" and args[1:] == (2,)) or (kind == "mul" and len(reads) == 2 and reads[0] == reads[1]):
        kind, reads = "square", reads[:1]
    if kind == "cast" and recorder.operations[reads[0]].kind == "constant":
        constant = recorder.operations[reads[0]]
        return recorder.constant(constant.value if constant.value is not None else math.nan, dtype)
    if kind in ("sum", "mean", "max", "softmax"):
        reads = reads[:1]
    shape = getattr(args[0], "shape", ()) if args else ()
    terms = _terms(shape, output.shape) if kind in ("sum", "mean") else 1
    return recorder.add(kind, dtype, reads, path=scopes.current, line=scopes.line(), terms=terms)
