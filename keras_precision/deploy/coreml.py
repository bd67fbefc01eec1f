"""export_coreml: a Keras model as a Core ML ``.mlpackage`` that was read back, and run where there is macOS."""

import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import adapter_of
from keras_precision.chatter import captured
from keras_precision.deploy.shipping import ship
from keras_precision.deploy.toolchain import Job, Order, Toolchain, check_session
from keras_precision.errors import ExportError, FileFormatError, ModelError
from keras_precision.optional import require
from keras_precision.quantize.converter import serving_function
from keras_precision.result import Result
from keras_precision.runtime_session import RuntimeSession
from keras_precision.tflite_file import EdgeModel, Tensor
from keras_precision.tflite_operators import Operator

__all__ = ["CoremlToolchain", "export_coreml"]

Array = npt.NDArray[Any]

_TYPES = {10: "float16", 11: "float32", 21: "int8", 22: "int16", 23: "int32", 24: "int64", 1: "bool"}
"""Element types of a program, by their numbers in MIL.proto."""
_FEATURES = {65568: "float32", 65552: "float16", 131104: "int32", 65600: "float64"}
"""Element types of inputs and outputs, by their numbers in FeatureTypes.proto."""
_WEIGHTED = ("conv", "conv_transpose", "linear", "matmul", "gather")


def export_coreml(
    model: Any, path: str | os.PathLike[str], plan: str = "float16", *, strict: bool = False, overwrite: bool = True
) -> Result:
    """Write a model as Core ML's ``.mlpackage``, and read it back.

    Core ML runs on Apple's systems alone: on macOS the package is run and held against the model;
    elsewhere its structure and size are told, and a note says that it was not run.

    Args:
        model: A built functional or sequential model of tf_keras, or of Keras 3 on TensorFlow.
        path: Where the package goes, ending in ``.mlpackage``; its folder must exist. Nothing is
            written unless all checks pass.
        plan: ``"float32"``, ``"float16"``, or ``"int8"``: weights in int8, symmetric, with a scale
            for each channel, which are widened to float16 as the model runs.
        strict: Raise for every layer whose weights are not in the plan's precision.
        overwrite: Whether an older package at ``path`` may be replaced.

    Returns:
        ``operator`` and ``operator_count``, ``input_type``, ``output_type``, ``size_bytes`` (of all
        files in the package), ``export_time_s``; notes.

    Raises:
        InputError: The plan does not fit the format.
        ModelError: The model is of another backend, subclassed or not built, or an input has a free size.
        DestinationError: The path cannot be written.
        ExportError: coremltools cannot convert the model.
        MissingExtraError: ``coremltools`` is not installed.

    Example:
        >>> export_coreml(model, "model.mlpackage", "float16").value("operator_count", "matmul float16")
        2
    """
    toolchain = CoremlToolchain()
    order = Order(toolchain.decided(plan), strict=strict)
    adapter = adapter_of(model)
    if adapter.compute.name != "tensorflow":
        raise ModelError(
            f"Expected a model of the TensorFlow backend, which coremltools reads. Received: '{model.name}' of {adapter.compute.name}. "
            "Save it as .keras, and export it from a process with KERAS_BACKEND=tensorflow."
        )
    return ship(toolchain, model, path, order, None, overwrite=overwrite)


class CoremlToolchain(Toolchain):
    """``.mlpackage`` folders for Core ML."""

    name, suffix, extra = "coreml", ".mlpackage", "coreml"
    packages = ("coremltools",)
    mixed = False
    calibrates = False

    def export(self, job: Job, path: Path) -> tuple[str, ...]:
        """Write the package; weights are quantized after the conversion to float16."""
        tools = _coremltools()
        plan = job.order.plan.default
        serving, _alive = serving_function(job.model)
        precision = tools.precision.FLOAT32 if plan == "float32" else tools.precision.FLOAT16
        with captured("coremltools"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of conversions inside
            try:
                made = tools.convert(
                    [serving],
                    source="tensorflow",
                    convert_to="mlprogram",
                    compute_precision=precision,
                    skip_model_load=not _on_mac(),
                )
                if plan == "int8":
                    made = _lowered(made)
                made.save(os.fspath(path))
            except Exception as error:  # coremltools raises what it likes; the cause is kept
                raise ExportError(
                    f"Expected coremltools to convert '{job.model.name}'. Received: {type(error).__name__}: {error}. "
                    "It reads no loops: build recurrent layers with unroll=True, or export to another format."
                ) from error
        if not _on_mac():
            return ("Core ML runs on Apple's systems alone: the package was not run.",)
        if plan != "int8":
            check_session(job.model, _MacSession(path, self.read_back(path)))
        return ()

    def read_back(self, path: Path) -> EdgeModel:
        """Return what the package says of its inputs, outputs and operators."""
        with captured("coremltools"):
            try:
                spec = _coremltools().models.MLModel(os.fspath(path), skip_model_load=True).get_spec()
            except Exception as error:  # as above
                raise FileFormatError(
                    f"{path}: expected a Core ML package. Received: {type(error).__name__}: {error}"
                ) from error
        block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
        operators = tuple(_operators(block))
        version = _coremltools().__version__
        return EdgeModel(
            path=str(path),
            size_bytes=sum(each.stat().st_size for each in path.rglob("*") if each.is_file()),
            runtime=f"coremltools {version}",
            inputs=tuple(map(_tensor, spec.description.input)),
            outputs=tuple(map(_tensor, spec.description.output)),
            operators=operators,
            writers=(-1,) * len(spec.description.output),
        )

    def judged(self, model: EdgeModel, order: Order) -> EdgeModel:
        """Weights alone are lowered to int8: the plan is held against what has any."""
        if order.plan.default != "int8":
            return model
        free = [each if each.weights else replace(each, precision="index") for each in model.operators]
        return replace(model, operators=tuple(free))

    def run(self, path: str | os.PathLike[str], *, threads: int = 1) -> RuntimeSession | None:
        """Open the package where there is macOS."""
        return _MacSession(path, self.read_back(Path(path))) if _on_mac() else None


class _MacSession(RuntimeSession):
    """Core ML on one package, on macOS."""

    def __init__(self, path: str | os.PathLike[str], model: EdgeModel) -> None:
        super().__init__(model)
        self._opened = _coremltools().models.MLModel(os.fspath(path))

    def run(self, sample: Sequence[Array]) -> list[Array]:
        """Run the model once."""
        pairs = zip(self.model.inputs, sample, strict=True)
        answers = self._opened.predict({tensor.name: np.asarray(values, tensor.dtype) for tensor, values in pairs})
        return [np.asarray(answers[tensor.name]) for tensor in self.model.outputs]


def _on_mac() -> bool:
    return platform.system() == "Darwin"


def _coremltools() -> Any:
    with captured("coremltools"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports, and of versions that it was not tested with
        return require("coremltools", extra="coreml")


def _lowered(made: Any) -> Any:
    optimize = require("coremltools.optimize.coreml", extra="coreml")
    how = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
    return optimize.linear_quantize_weights(made, optimize.OptimizationConfig(global_config=how))


def _operators(block: Any) -> Iterator[Operator]:
    """The operators of a program, without constants and changes of type."""
    kinds: dict[str, str] = {}
    stored: dict[str, str] = {}
    made_by: dict[str, int] = {}
    number = 0
    for each in block.operations:
        outputs = [output.name for output in each.outputs]
        kinds.update({out.name: _TYPES.get(out.type.tensorType.dataType, "other") for out in each.outputs})
        read = [binding.name for argument in each.inputs.values() for binding in argument.arguments if binding.name]
        if each.type == "const" or each.type.startswith("constexpr"):
            stored.update(dict.fromkeys(outputs, "int8" if each.type.startswith("constexpr") else kinds[outputs[0]]))
            continue
        if each.type == "cast":
            made_by.update({name: made_by[source] for name in outputs for source in read if source in made_by})
            continue
        floats = [stored[name] for name in read if stored.get(name) in ("int8", "float16", "float32")]
        weights = tuple(floats) if each.type in _WEIGHTED else ()
        precision = "int8" if "int8" in weights else kinds[outputs[0]]
        yield Operator(
            kernel=each.type,
            precision=precision if precision in ("int8", "float16", "float32") else "index",
            tensors=tuple(outputs),
            reads=tuple(sorted({made_by[name] for name in read if name in made_by})),
            weights=weights,
            types=f"{','.join(kinds.get(name, '?') for name in read if name not in stored)}->{kinds[outputs[0]]}",
        )
        made_by.update(dict.fromkeys(outputs, number))
        number += 1


def _tensor(feature: Any) -> Tensor:
    kind = feature.type.multiArrayType
    return Tensor(feature.name, tuple(int(size) for size in kind.shape), _FEATURES.get(kind.dataType, "float32"))
