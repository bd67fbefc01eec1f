"""export_coreml: a Keras model as a Core ML ``.mlpackage`` that was read back, and run where there is macOS."""

import os
import platform
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from keras_precision._adapters.model_view import ModelView
from keras_precision.core.errors import ExportError, InputError, nearest
from keras_precision.core.model_inputs import Input
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.optional import require
from keras_precision.export.pipeline import export_file
from keras_precision.export.request import ExportRequest
from keras_precision.export.toolchain import ExportedFile, ExportJob, Toolchain, check_session
from keras_precision.quantization.conversion import fixed_inputs, serving_function
from keras_precision.quantization.tensorflow_process import on_tensorflow
from keras_precision.runtimes.coreml import CoremlSession, coremltools, inspect_coreml, open_coreml
from keras_precision.runtimes.model_info import CARD, EdgeModel
from keras_precision.runtimes.session import RuntimeSession

__all__ = ["CoremlToolchain", "export_coreml"]

_WEIGHTS = ("linear", "palettized")


def export_coreml(
    model: Any,
    path: str | os.PathLike[str],
    plan: str = "float16",
    *,
    weights: Literal["linear", "palettized"] = "linear",
    strict: bool = False,
    input_signature: Any = None,
    overwrite: bool = True,
) -> Result:
    """Write a model as Core ML's ``.mlpackage``, and read it back.

    Core ML runs on Apple's systems alone: on macOS the package is run and compared with the model;
    elsewhere its structure and size are reported, and a note says that it was not run.

    Args:
        model: A built functional or sequential model.
        path: Where the package goes, ending in ``.mlpackage``; its folder must exist. Nothing is
            written unless all checks pass.
        plan: ``"float32"``, ``"float16"``, or ``"int8"``: weights of one byte, which are widened
            to float16 as the model runs.
        weights: What a byte stands for under ``"int8"``. ``"linear"``: a step of an even grid,
            symmetric, with a scale per channel. ``"palettized"``: an entry of a table of 256
            values for the whole tensor, from k-means; the table takes 512 bytes per tensor.
        strict: Raise for every layer whose weights are not in the plan's precision.
        input_signature: The sizes of inputs that the model leaves free, as ``Model.export`` of Keras takes them, such as
            ``[keras.InputSpec(shape=(1, 128), dtype="int32")]``.
        overwrite: Whether an older package at ``path`` may be replaced.

    Returns:
        ``operator`` and ``operator_count``, ``input_type``, ``output_type``, ``size_bytes`` (of all
        files in the package), ``export_time_s``; notes. All but time and size is on the card inside
        the package, too.

    Raises:
        InputError: ``weights`` is unknown, or palettized under another plan than int8.
        UnknownPrecisionError: The format does not have the precision.
        ModelError: The model is not built or cannot be called on symbolic inputs, or an input has a free size.
        DestinationError: The path cannot be written.
        ExportError: coremltools cannot convert the model.
        MissingExtraError: ``coremltools`` is not installed.

    Example:
        >>> export_coreml(model, "model.mlpackage", "float16").value("operator_count", "matmul float16")
        2
    """
    return export_file(
        CoremlToolchain(weights), model, path, plan, strict=strict, input_signature=input_signature, overwrite=overwrite
    )


class CoremlToolchain(Toolchain):
    """``.mlpackage`` folders for Core ML.

    Args:
        weights: What a byte of int8 weights stands for: ``"linear"`` or ``"palettized"``.

    Raises:
        InputError: It is neither.
    """

    name, suffix, extra = "coreml", ".mlpackage", "coreml"
    packages = ("coremltools",)
    mixed = False
    calibrates = False
    writes_folders = True

    def __init__(self, weights: str = "linear") -> None:
        if weights not in _WEIGHTS:
            raise InputError(
                f"Expected weights to be one of {', '.join(_WEIGHTS)}. Received: {weights!r}. {nearest(str(weights), _WEIGHTS)}".rstrip()
            )
        self._weights = weights

    def decided(self, plan: str | PrecisionPlan) -> PrecisionPlan:
        """Return a plan that a package can hold: palettized weights are those of int8."""
        plan = super().decided(plan)
        if self._weights == "palettized" and plan.default != "int8":
            raise InputError(
                f"Expected the plan int8 for palettized weights. Received: {plan.default}. "
                "Export with plan='int8', or with weights='linear'."
            )
        return plan

    def export(self, job: ExportJob, path: Path) -> ExportedFile:
        """Write the package; weights are quantized after the conversion to float16."""
        plan, inputs = job.request.plan.default, fixed_inputs(job.view)
        on_tensorflow(_write_package, job.view, inputs, plan, self._weights, os.fspath(path))
        if not _on_mac():
            return ExportedFile(("Core ML runs on Apple's systems alone: the package was not run.",))
        if plan != "int8":
            check_session(job.view, CoremlSession(path))
        return ExportedFile()

    def inscribe(self, path: Path, card: str) -> None:
        """Put the card among the package's own metadata."""
        with capture_output("coremltools"):
            opened = open_coreml(path)
            opened.user_defined_metadata[CARD] = card
            again = path.with_name(f"with-card-{path.name}")
            opened.save(os.fspath(again))
        shutil.rmtree(path)
        again.rename(path)

    def read_back(self, path: Path) -> EdgeModel:
        """Return what the package says of its inputs, outputs and operators."""
        return inspect_coreml(path)

    def judged(self, model: EdgeModel, request: ExportRequest) -> EdgeModel:
        """Weights alone are in int8: the plan is compared with operators that have any."""
        if request.plan.default != "int8":
            return model
        free = [operator if operator.weights else replace(operator, precision="index") for operator in model.operators]
        return replace(model, operators=tuple(free))

    def run(self, path: str | os.PathLike[str], *, threads: int = 1) -> RuntimeSession | None:
        """Open the package where there is macOS."""
        return CoremlSession(path) if _on_mac() else None


def _write_package(view: ModelView, inputs: Sequence[Input], plan: str, weights: str, path: str) -> None:
    """Convert a model of the TensorFlow backend, whose functions coremltools reads, and save the package."""
    tools = coremltools()
    serving, _alive = serving_function(view, inputs)
    precision = tools.precision.FLOAT32 if plan == "float32" else tools.precision.FLOAT16
    with capture_output("coremltools"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of conversions inside
        try:
            package = tools.convert(
                [serving],
                source="tensorflow",
                convert_to="mlprogram",
                compute_precision=precision,
                skip_model_load=not _on_mac(),
            )
            if plan == "int8":
                package = _with_byte_weights(package, weights)
            package.save(path)
        except Exception as error:  # coremltools raises errors of any kind, chained here
            raise ExportError(
                f"Expected coremltools to convert '{view.name}'. Received: {type(error).__name__}: {error}. "
                "It reads no loops: build recurrent layers with unroll=True, or export to another format."
            ) from error


def _on_mac() -> bool:
    return platform.system() == "Darwin"


def _with_byte_weights(package: Any, weights: str) -> Any:
    """The model with all its weights in one byte."""
    optimize = require("coremltools.optimize.coreml", extra="coreml")
    if weights == "palettized":
        palette = optimize.OpPalettizerConfig(mode="kmeans", nbits=8, weight_threshold=0)
        return optimize.palettize_weights(package, optimize.OptimizationConfig(global_config=palette))
    grid = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
    return optimize.linear_quantize_weights(package, optimize.OptimizationConfig(global_config=grid))
