"""A Keras model as a float ``.tflite`` file of one sample, with the layers that its operators come from."""

import gc
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from keras_precision._adapters import KerasAdapter, adapter_of
from keras_precision._adapters.adapter import Input
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.errors import ExportError, ModelError, PrecisionError
from keras_precision.core.system.captured_output import captured
from keras_precision.core.system.optional import require
from keras_precision.quantization.layer_trace import Trace

__all__ = ["Converted", "FloatFormat", "convert", "input_names", "serving_function", "static_shape"]

FloatFormat = Literal["float32", "float16", "trained", "trained_float_io"]


@dataclass(frozen=True)
class Converted:
    """What TFLiteConverter made of a model.

    Attributes:
        content: The file's content.
        trace: The graph that it was made from.
    """

    content: bytes
    trace: Trace


def convert(model: Any, precision: FloatFormat = "float32", names: Sequence[str] | None = None) -> Converted:
    """Convert a model of the TensorFlow backend for one sample at a time.

    A free batch axis costs shape arithmetic at run time. A model in mixed precision is converted
    from its float32 weights.

    Args:
        model: A built functional or sequential model.
        precision: ``"float32"``, ``"float16"`` for weights of half the size, or, for a model that
            TensorFlow Model Optimization has prepared, ``"trained"`` for the integers that it was
            trained for, or ``"trained_float_io"`` with floats at both ends.
        names: What the file calls the inputs, in the model's order; None for the model's own names.

    Returns:
        The file, and the graph that it was made from.

    Raises:
        ModelError: An input has a size that is not fixed.
        ExportError: The converter failed.
    """
    tensorflow = require("tensorflow", extra="tensorflow")
    adapter = adapter_of(model)
    trace, inputs = Trace({}, ()), _named_inputs(adapter, model, names)
    with tempfile.TemporaryDirectory() as folder, captured("TFLiteConverter"):
        try:
            exported = adapter.in_float32(model)
            serving, trace = _traced(tensorflow, adapter, exported, inputs)
            holder = tensorflow.Module()
            holder.variables_of_model = adapter.tensorflow_variables(exported)
            tensorflow.saved_model.save(holder, folder, signatures={"serving_default": serving})
            converter = tensorflow.lite.TFLiteConverter.from_saved_model(folder)
            if precision == "float16":
                converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
                converter.target_spec.supported_types = [tensorflow.float16]
            elif precision != "float32":
                converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
                side = tensorflow.int8 if precision == "trained" else tensorflow.float32
                converter.inference_input_type = converter.inference_output_type = side
            with _older_objects_left_alone():
                content = bytearray(converter.convert())
            _order_inputs(content, [model_input.name for model_input in inputs])
            return Converted(bytes(content), trace)
        except PrecisionError:
            raise
        except Exception as error:  # Keras, TensorFlow and its C++ code raise what they like; the cause is kept
            raise ExportError(
                f"Expected TFLiteConverter to convert '{model.name}' to {precision}. Received: {_reason(error, trace)}"
            ) from error


def _order_inputs(content: bytearray, names: Sequence[str]) -> None:
    """Give a file its inputs in the model's order.

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
def _older_objects_left_alone() -> Iterator[None]:
    """Let a collection of garbage look at newer objects alone.

    The converter collects in each conversion. In a process that holds much, as notebooks and test runs do, that takes
    a second, and the conversion itself a tenth of one.
    """
    if gc.get_freeze_count():  # whoever froze objects will thaw them
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def serving_function(model: Any, names: Sequence[str] | None = None) -> tuple[Any, Any]:
    """Return a model as a concrete function of TensorFlow for one sample.

    Args:
        model: A built model of the TensorFlow backend.
        names: As for ``convert``.

    Returns:
        The function, and the model in float32 whose variables it reads, which must outlive it.
    """
    tensorflow = require("tensorflow", extra="tensorflow")
    adapter = adapter_of(model)
    exported = adapter.in_float32(model)
    serving, _ = _traced(tensorflow, adapter, exported, _named_inputs(adapter, model, names))
    return serving, exported


def input_names(model: Any) -> list[str]:
    """Return what files call the inputs of a model, in its order.

    Args:
        model: A built functional or sequential model of any backend.

    Returns:
        The names.

    Raises:
        ModelError: The model is subclassed or not built, or an input has a size that is not fixed.
    """
    inputs = adapter_of(model).inputs(model)
    for model_input in inputs:
        static_shape(model_input)
    return [model_input.name for model_input in inputs]


def _named_inputs(adapter: KerasAdapter, model: Any, names: Sequence[str] | None) -> tuple[Input, ...]:
    """The inputs of a model, by position under the names that another process knows them by."""
    inputs = adapter.inputs(model)
    if names is None:
        return inputs
    return tuple(replace(model_input, name=name) for model_input, name in zip(inputs, names, strict=True))


def static_shape(wanted: Input) -> tuple[int, ...]:
    """Return the shape of an input whose sizes are all fixed.

    Args:
        wanted: The input.

    Returns:
        Its shape without the batch axis.

    Raises:
        ModelError: A size is free.
    """
    if None in wanted.shape:
        raise ModelError(
            f"Expected inputs of a fixed size. Received: '{wanted.name}' of shape (n, {', '.join(str(size) for size in wanted.shape)}). "
            "Build the model with a fixed Input shape: integer kernels need one."
        )
    return tuple(size for size in wanted.shape if size is not None)


def _traced(tensorflow: Any, adapter: KerasAdapter, model: Any, inputs: Sequence[Input]) -> tuple[Any, Trace]:
    """Trace the model for one sample, and note the scope in which each layer's operations lie."""
    paths = {id(layer): path for path, layer in layer_paths(model).items()}
    scopes: dict[str, str] = {}
    makers: list[str | None] = []

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
        outputs = adapter.call(model, [tensors[each.name] for each in inputs])
        makers[:] = [scopes.get(output.op.name) for output in outputs]
        return {f"output_{index}": output for index, output in enumerate(outputs)}

    wanted = {each.name: tensorflow.TensorSpec((1, *static_shape(each)), each.dtype, name=each.name) for each in inputs}
    with adapter.watching_calls(watch):
        serving = tensorflow.function(serve).get_concrete_function(**wanted)
    return serving, Trace(scopes, tuple(makers), tuple(paths.values()))


@contextmanager
def _inlined(tensorflow: Any, layer: Any) -> Iterator[None]:
    """Trace a grouped convolution, which both Kerases compile as a function of its own, without that function.

    Its operations would come into the file under names that tell nothing of the layer.
    """
    if getattr(layer, "groups", 1) == 1:
        yield
        return
    before = tensorflow.config.functions_run_eagerly()
    tensorflow.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tensorflow.config.run_functions_eagerly(before)


def _reason(error: Exception, trace: Trace) -> str:
    """The converter's message without its dump of the graph, and with the layers' own names."""
    text = str(error)
    missing = {name: trace.path_of(operation) for name, operation in re.findall(r'fused\["(\w+):", "([^"@]+)', text)}
    missing = {name: path for name, path in missing.items() if path and f"tf.{name}" in text}
    if not missing:
        return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"
    named = ", ".join(f"{name} of layer '{path}'" for name, path in missing.items())
    return f"no kernel in TensorFlow Lite for {named}. Replace it with operations that have one."
