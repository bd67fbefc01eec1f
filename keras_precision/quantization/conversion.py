"""Conversion of a Keras model to a float ``.tflite`` file for one sample, with the layers of its operators."""

import gc
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from keras_precision._adapters.layer_paths import paths_of
from keras_precision._adapters.model_view import ModelView
from keras_precision._adapters.rebuild import in_float32
from keras_precision.core.errors import ExportError, ModelError, PrecisionError
from keras_precision.core.model_inputs import Input
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.optional import require
from keras_precision.quantization.layer_trace import Trace
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["ConvertedFile", "FloatFormat", "convert", "fixed_inputs", "serving_function", "static_shape"]

_NO_ARITHMETIC = ("Const", "Identity", "NoOp", "Placeholder", "ReadVariableOp")

FloatFormat = Literal["float32", "float16", "trained", "trained_float_io"]


@dataclass(frozen=True)
class ConvertedFile:
    """A file that TFLiteConverter wrote, and the trace of the graph that it was converted from."""

    content: bytes
    trace: Trace


def convert(
    view: ModelView, precision: FloatFormat = "float32", inputs: Sequence[Input] | None = None
) -> ConvertedFile:
    """Convert a model of the TensorFlow backend, from its float32 weights, for one sample at a time.

    A free batch axis would cost shape arithmetic at run time. Of a model that TensorFlow Model Optimization
    has prepared, ``"trained"`` has the integers that it was trained for, and ``"trained_float_io"`` floats at
    both ends. ``inputs`` are those of the original model, where it lives in another process. Raises ModelError or ExportError.
    """
    tensorflow = require("tensorflow", extra="tensorflow")
    # A private module, https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/lite/python/convert_phase.py.
    failure = require("tensorflow.lite.python.convert_phase", extra="tensorflow").ConverterError
    traced, inputs = _Traced(None, Trace({}, ())), view.inputs if inputs is None else inputs
    with tempfile.TemporaryDirectory() as folder, capture_output("TFLiteConverter"):
        try:
            exported = in_float32(view.adapter, view.model)
            traced = _Traced(*_traced(tensorflow, view, exported, inputs))
            try:
                return _converted(tensorflow, view, exported, traced, inputs, precision, folder)
            except failure:
                # It folds an axis of size 1 away, and then transposes what has an axis less: a transposed bias of
                # EinsumDense, in attention on series of one feature. With a free batch it does not.
                free = _Traced(*_traced(tensorflow, view, exported, inputs, batch_size=None))
                with suppress(failure):
                    graph = Flatbuffer(_converted(tensorflow, view, exported, free, inputs, precision, folder).content)
                    graph.fix_sizes()
                    return ConvertedFile(graph.content(), free.trace)
                raise
        except PrecisionError:
            raise
        except Exception as error:  # Keras and TensorFlow raise errors of any class; it stays as the cause
            raise ExportError(
                f"Expected TFLiteConverter to convert '{view.name}' to {precision}. Received: {_reason(error, view, traced.trace, traced.serving)}"
            ) from error


class _Traced(NamedTuple):
    """The concrete function of a model, None before it was traced, and the scopes of its layers."""

    serving: Any
    trace: Trace


def _converted(
    tensorflow: Any,
    view: ModelView,
    exported: Any,
    traced: _Traced,
    inputs: Sequence[Input],
    precision: FloatFormat,
    folder: str,
) -> ConvertedFile:
    """Convert a traced model by a SavedModel in a folder."""
    holder = tensorflow.Module()
    holder.variables_of_model = view.adapter.tensorflow_variables(exported)
    tensorflow.saved_model.save(holder, folder, signatures={"serving_default": traced.serving})
    converter = tensorflow.lite.TFLiteConverter.from_saved_model(folder)
    if precision == "float16":
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tensorflow.float16]
    elif precision != "float32":
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        side = tensorflow.int8 if precision == "trained" else tensorflow.float32
        converter.inference_input_type = converter.inference_output_type = side
    with _frozen_garbage_collection():
        content = bytearray(converter.convert())
    _order_inputs(content, [model_input.name for model_input in inputs])
    return ConvertedFile(bytes(content), traced.trace)


def _order_inputs(content: bytearray, names: Sequence[str]) -> None:
    """Put the inputs of a file into the order of the model.

    The converter orders them by a hash of their names: https://github.com/tensorflow/tensorflow/issues/55424.
    """
    schema = require("tensorflow.lite.python.schema_py_generated", extra="tensorflow")
    model = schema.Model.GetRootAs(content)
    signature = model.SignatureDefs(0)
    entries = [signature.Inputs(number) for number in range(signature.InputsLength())]
    tensors = {entry.Name().decode(): entry.TensorIndex() for entry in entries}
    order = sorted(tensors, key=names.index)
    model.Subgraphs(0).InputsAsNumpy()[:] = [tensors[name] for name in order]  # a view of the content


@contextmanager
def _frozen_garbage_collection() -> Iterator[None]:
    """Limit garbage collection to objects that are created within the block."""
    # The converter calls gc.collect() in every conversion, which takes a second in a process with many objects, such as
    # a notebook: https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/lite/python/lite.py.
    if gc.get_freeze_count():  # the caller froze objects, and will unfreeze them
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def serving_function(view: ModelView, inputs: Sequence[Input]) -> tuple[Any, Any]:
    """Return a concrete function for one sample, and the float32 model with its variables, which must outlive it."""
    tensorflow = require("tensorflow", extra="tensorflow")
    exported = in_float32(view.adapter, view.model)
    serving, _ = _traced(tensorflow, view, exported, inputs)
    return serving, exported


def fixed_inputs(view: ModelView) -> tuple[Input, ...]:
    """Return a model's inputs in exported files; ModelError where a size is free."""
    for model_input in view.inputs:
        static_shape(model_input)
    return view.inputs


def static_shape(model_input: Input) -> tuple[int, ...]:
    """Return the shape of an input without the batch axis; ModelError where a size is free."""
    if None in model_input.shape:
        raise ModelError(
            f"Expected inputs of a fixed size. Received: '{model_input.name}' of shape (n, {', '.join(str(size) for size in model_input.shape)}). "
            "Give one: input_signature=[keras.InputSpec(shape=(1, ...), dtype=...)], or build the model with a fixed Input shape."
        )
    return tuple(size for size in model_input.shape if size is not None)


def _traced(
    tensorflow: Any, view: ModelView, exported: Any, inputs: Sequence[Input], batch_size: int | None = 1
) -> tuple[Any, Trace]:
    """Trace a model, or its copy in float32, for one sample, and record the graph scope of every layer."""
    layers = view.layers if exported is view.model else paths_of(view.adapter, exported)
    paths = {id(layer): path for path, layer in layers.items()}
    scopes: dict[str, str] = {}
    output_layers: list[str | None] = []

    def watch(layer: Any, proceed: Callable[[], Any]) -> Any:
        path = paths.get(id(layer))
        if path is None:
            return proceed()
        graph = tensorflow.compat.v1.get_default_graph()
        outer, before = tensorflow.get_current_name_scope(), len(graph.get_operations())
        with _inlined(tensorflow, layer):
            outputs = proceed()
        for operation in graph.get_operations()[before:]:
            scopes.setdefault(operation.name, path)
            scope = operation.name.rpartition("/")[0]
            if len(scope) > len(outer):  # the scope around the layer is not the layer's
                scopes.setdefault(scope, path)
        return outputs

    def serve(**tensors: Any) -> dict[str, Any]:
        outputs = view.adapter.call(exported, [tensors[model_input.name] for model_input in inputs])
        output_layers[:] = [scopes.get(output.op.name) for output in outputs]
        return {f"output_{index}": output for index, output in enumerate(outputs)}

    signature = {
        model_input.name: tensorflow.TensorSpec(
            (batch_size, *static_shape(model_input)), model_input.dtype, name=model_input.name
        )
        for model_input in inputs
    }
    with view.adapter.watching_calls(watch), view.adapter.convertible_operations():
        serving = tensorflow.function(serve).get_concrete_function(**signature)
    for operation in serving.graph.get_operations():
        if operation.type not in _NO_ARITHMETIC:
            scopes.setdefault(operation.name, "")
    return serving, Trace(scopes, tuple(output_layers), tuple(paths.values()))


@contextmanager
def _inlined(tensorflow: Any, layer: Any) -> Iterator[None]:
    """Trace a grouped convolution without the compiled function that Keras 3 and tf_keras wrap it in."""
    # Operations inside that function lose the name scope of their layer:
    # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/tensorflow/nn.py and
    # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/src/layers/convolutional/base_conv.py.
    if getattr(layer, "groups", 1) == 1:
        yield
        return
    before = tensorflow.config.functions_run_eagerly()
    tensorflow.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tensorflow.config.run_functions_eagerly(before)


def _reason(error: Exception, view: ModelView, trace: Trace, serving: Any) -> str:
    """Return the converter's message without its dump of the graph, and with functions of Keras and layer paths."""
    text = str(error)
    graph = {} if serving is None else {operation.name: operation for operation in serving.graph.get_operations()}
    missing = [
        _origin(view, trace, graph[name], kernel)
        for kernel, name in re.findall(r'fused\["(\w+):", "([^"@]+)', text)
        if f"'tf.{kernel}' op is neither" in text and name in graph
    ]
    if not missing:
        return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"
    return f"no kernel in TensorFlow Lite for {', '.join(dict.fromkeys(missing))}. Replace it with operations that have one."


def _origin(view: ModelView, trace: Trace, operation: Any, kernel: str) -> str:
    """Return an operation of a graph with the function of Keras and the layer that it comes from."""
    function, path = view.adapter.operation_name(operation), trace.path_of(operation.name)
    layer = f"of layer '{path}'" if path else "outside the layers"
    return f"{kernel} {layer}" if function is None else f"{kernel} of keras.ops.{function} {layer}"
