"""export_tflite: a Keras model as a TensorFlow Lite file that was read back and run."""

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from keras_precision._adapters import KerasAdapter, adapter_of
from keras_precision._adapters.keras import Input
from keras_precision._adapters.paths import layer_paths
from keras_precision._adapters.samples import read_samples
from keras_precision.chatter import captured
from keras_precision.deploy.readback import Trace, check_plan, layers_of, realised_plan
from keras_precision.environment import Environment
from keras_precision.errors import ExportError, InputError, ModelError, PrecisionError, UnknownPrecisionError
from keras_precision.files import check_destination, write_whole
from keras_precision.optional import require
from keras_precision.plan import PrecisionPlan, check_precision
from keras_precision.result import Measurement, Result
from keras_precision.tflite_file import EdgeModel, inspect, runtime

__all__ = ["export_tflite"]

Array = npt.NDArray[Any]
Samples = Mapping[str, Array]
_PRECISIONS = ("float32", "float16", "int8")


def export_tflite(
    model: Any,
    path: str | os.PathLike[str],
    plan: str | PrecisionPlan = "int8",
    representative_dataset: Any = None,
    *,
    io: Literal["int8", "float32"] | None = None,
    strict: bool = False,
) -> Result:
    """Write a model as a ``.tflite`` file, read it back, and run it once.

    The file takes one sample at a time: a free batch axis costs shape arithmetic at run time. A
    model in mixed precision is exported from its float32 weights.

    Args:
        model: A built functional or sequential model of tf_keras, or of Keras 3 on TensorFlow.
        path: Where the file goes, ending in ``.tflite``; its folder must exist. Nothing is written
            unless all checks pass.
        plan: ``"float32"``, ``"float16"`` (weights; computed in float32 on most processors) or
            ``"int8"`` (weights and activations, full integer), or a deployment plan with one of
            these as its default.
        representative_dataset: Samples that set the ranges of the activations, needed for int8:
            an array of shape (n, ...), one per input as a tuple or dict, or anything that ``fit``
            takes (``tf.data``, ``PyDataset``, torch ``DataLoader``, generator; labels are dropped),
            or a function that yields lists of arrays.
        io: Element type of inputs and outputs of an int8 file: ``"int8"`` (default) or ``"float32"``.
        strict: Raise for every operator that stayed in float, not for those of named layers alone.

    Returns:
        A result with ``size_bytes``, ``operator`` for each operator, ``operator_count`` for each
        kind, ``input_type`` and ``output_type``, ``calibration_samples`` and ``export_time_s``; its
        plan is the one that the file realises, and its notes name the layers that stayed in float.

    Raises:
        UnknownPrecisionError: The precision is not one that this verb writes.
        PlanKindError: A training plan was given.
        UnknownLayerError: The plan names a layer that the model does not have.
        DataError: The representative data are missing, empty, or do not fit the model.
        ModelError: The model is subclassed, not built, or of a backend that cannot be exported.
        DestinationError: The path cannot be written.
        MissingExtraError: TensorFlow or the interpreter is not installed.
        PlanNotHonouredError: The file does not compute a named layer as the plan says.
        ExportError: The converter failed.

    Example:
        >>> result = export_tflite(model, "model.tflite", "int8", representative_dataset=x_cal)
        >>> result.value("operator_count", "FULLY_CONNECTED int8")
        2
    """
    began = time.perf_counter()
    decided = _decided(plan)
    adapter = adapter_of(model)
    inputs = adapter.inputs(model)
    paths = layer_paths(model)
    decided.resolve(paths)
    _check_io(io, decided)
    destination = check_destination(path, suffix=".tflite")
    tensorflow = _tensorflow(adapter)
    samples = read_samples(representative_dataset, inputs) if decided.default == "int8" else {}
    content, trace = _convert(tensorflow, adapter, model, decided, samples, io or decided.default)
    written = _read_back(content, destination.name)
    layers = layers_of(written, trace)
    realised = realised_plan(written, decided, layers, list(paths))
    notes = check_plan(written, decided, realised, layers, strict=strict)
    write_whole(destination, content)
    rows = [
        Measurement(destination.name, "export_time_s", time.perf_counter() - began),
        *_rows(destination.name, written),
    ]
    if samples:
        rows.append(Measurement(destination.name, "calibration_samples", len(next(iter(samples.values())))))
    return Result(f"tflite:{decided.default}", tuple(rows), Environment.here(backend=written.runtime), realised, notes)


def _decided(plan: str | PrecisionPlan) -> PrecisionPlan:
    if not isinstance(plan, PrecisionPlan):
        check_precision(plan, "deployment", "the plan")
        plan = PrecisionPlan.deployment(plan)
    plan.expect("deployment")
    if plan.default not in _PRECISIONS:
        raise UnknownPrecisionError(
            f"Expected one of the precisions that TFLiteConverter writes for a whole model: {', '.join(_PRECISIONS)}. Received: '{plan.default}'."
        )
    return plan


def _check_io(io: str | None, plan: PrecisionPlan) -> None:
    if io not in (None, "int8", "float32"):
        raise InputError(f"Expected io to be 'int8' or 'float32'. Received: {io!r}.")
    if io == "int8" and plan.default != "int8":
        raise InputError(
            f"Expected io='float32' for a {plan.default} file. Received: io='int8'. Only an int8 file takes integers."
        )


def _tensorflow(adapter: KerasAdapter) -> Any:
    backend = adapter.compute.name
    if backend != "tensorflow":
        raise ModelError(
            f"Expected a model of the TensorFlow backend. Received: one of the {backend} backend. Save it with model.save('model.keras'), "
            "and export it from a process that was started with KERAS_BACKEND=tensorflow."
        )
    runtime()
    return require("tensorflow", extra="tensorflow")


def _convert(
    tensorflow: Any, adapter: KerasAdapter, model: Any, plan: PrecisionPlan, samples: Samples, io: str
) -> tuple[bytes, Trace]:
    """Return the file's content, and the graph that it was made from."""
    trace = Trace({}, ())
    with tempfile.TemporaryDirectory() as folder, captured("TFLiteConverter"):
        try:
            exported = adapter.in_float32(model)
            serving, trace = _traced(tensorflow, adapter, exported, adapter.inputs(model))
            _refuse_loops(serving, trace, plan)
            holder = tensorflow.Module()
            holder.variables_of_model = adapter.tensorflow_variables(exported)
            tensorflow.saved_model.save(holder, folder, signatures={"serving_default": serving})
            converter = tensorflow.lite.TFLiteConverter.from_saved_model(folder)
            _configure(tensorflow, converter, plan, samples, io)
            return converter.convert(), trace
        except PrecisionError:
            raise
        except Exception as error:  # Keras, TensorFlow and its C++ code raise what they like; the cause is kept
            raise ExportError(
                f"Expected TFLiteConverter to convert '{model.name}' to {plan.default}. Received: {_reason(error, trace)}"
            ) from error


def _reason(error: Exception, trace: Trace) -> str:
    """The converter's message without its dump of the graph, and with the layers' own names."""
    text = str(error)
    missing = {name: trace.path_of(operation) for name, operation in re.findall(r'fused\["(\w+):", "([^"@]+)', text)}
    missing = {name: path for name, path in missing.items() if path and f"tf.{name}" in text}
    if not missing:
        return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"
    named = ", ".join(f"{name} of layer '{path}'" for name, path in missing.items())
    return f"no kernel in TensorFlow Lite for {named}. Replace it with operations that have one."


def _refuse_loops(serving: Any, trace: Trace, plan: PrecisionPlan) -> None:
    """Calibrating a graph with a loop ends the process in TensorFlow 2.21, with a segmentation fault."""
    loops = [trace.path_of(operation.name) for operation in serving.graph.get_operations() if "While" in operation.type]
    if loops and plan.default == "int8":
        raise ExportError(
            f"Expected a graph without loops for int8. Received: a loop in the layer '{loops[0]}', which TFLiteConverter cannot "
            "calibrate. Build recurrent layers with unroll=True, or export float16."
        )


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

    wanted = {each.name: tensorflow.TensorSpec((1, *_static(each)), each.dtype, name=each.name) for each in inputs}
    with adapter.watching_calls(watch):
        serving = tensorflow.function(serve).get_concrete_function(**wanted)
    return serving, Trace(scopes, tuple(makers))


def _static(wanted: Input) -> tuple[int, ...]:
    if None in wanted.shape:
        raise ModelError(
            f"Expected inputs of a fixed size. Received: '{wanted.name}' of shape (n, {', '.join(str(size) for size in wanted.shape)}). "
            "Build the model with a fixed Input shape: integer kernels need one."
        )
    return tuple(size for size in wanted.shape if size is not None)


def _configure(tensorflow: Any, converter: Any, plan: PrecisionPlan, samples: Samples, io: str) -> None:
    if plan.default == "float32":
        return
    converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
    if plan.default == "float16":
        converter.target_spec.supported_types = [tensorflow.float16]
        return
    converter.representative_dataset = lambda: _one_by_one(samples)
    # Kernels without an integer version stay in float, and are reported by name.
    converter.target_spec.supported_ops = [
        tensorflow.lite.OpsSet.TFLITE_BUILTINS_INT8,
        tensorflow.lite.OpsSet.TFLITE_BUILTINS,
    ]
    converter.inference_input_type = converter.inference_output_type = getattr(tensorflow, io)


def _one_by_one(samples: Samples) -> Iterator[dict[str, Array]]:
    for index in range(len(next(iter(samples.values())))):
        yield {name: array[index : index + 1] for name, array in samples.items()}


def _read_back(content: bytes, name: str) -> EdgeModel:
    """Load and run what is about to be written."""
    with tempfile.TemporaryDirectory() as folder:
        return inspect(write_whole(Path(folder) / name, content))


def _rows(subject: str, written: EdgeModel) -> Iterator[Measurement]:
    yield Measurement(subject, "size_bytes", written.size_bytes)
    for index, operator in enumerate(written.operators):
        text = f"{operator.kernel} {operator.precision} ({operator.types})"
        yield Measurement(f"{index}:{operator.kernel}", "operator", text)
    for kind, count in written.operator_counts.items():
        yield Measurement(kind, "operator_count", count)
    for tensor in written.inputs:
        yield Measurement(tensor.name, "input_type", tensor.described)
    for tensor in written.outputs:
        yield Measurement(tensor.name, "output_type", tensor.described)
