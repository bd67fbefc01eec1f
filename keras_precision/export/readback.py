"""What a written file does, compared with the plan that it was written for."""

import functools
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from keras_precision.core.errors import PlanError, PlanNotHonouredError
from keras_precision.core.formats.deployment import activation_precision
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.system.files import write_atomic
from keras_precision.export.request import ExportRequest
from keras_precision.quantization.layer_trace import OperatorLayers
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.runtimes.tflite.abort_check import check_runs_here
from keras_precision.runtimes.tflite.file import Operator, inspect
from keras_precision.runtimes.tflite.kernel_support import is_without_kernel, unsupported_operators

__all__ = ["WEIGHTED", "check_file", "read_back", "realised_plan"]


@functools.lru_cache(maxsize=8)  # the float file of a calibration is read for plan after plan
def read_back(content: bytes) -> EdgeModel:
    """Load and run the content of a ``.tflite`` file before it is written; raise where it does not run."""
    check_runs_here(content)
    with tempfile.TemporaryDirectory() as folder:
        return inspect(write_atomic(Path(folder) / "model.tflite", content))


def realised_plan(model: EdgeModel, plan: PrecisionPlan, layers: OperatorLayers, paths: Sequence[str]) -> PrecisionPlan:
    """Return the plan that a file realises: the same default, and every layer whose operators compute otherwise.

    A layer that left no operator of its own (dropout, a folded batch normalization) counts as in the precision of the
    whole file if that has a single one.
    """
    used: dict[str, list[str]] = {}
    for operator, owners in zip(model.operators, layers, strict=True):
        for path in owners:
            if _computes(operator, plan.precision_of(path)):
                used.setdefault(path, []).append(_precision(operator))
    everywhere = {_precision(operator) for operator in model.operators if _computes(operator, plan.default)}
    only = everywhere.pop() if len(everywhere) == 1 else plan.default
    realised = {path: _one(used.get(path, [only]), plan.precision_of(path)) for path in paths}
    return PrecisionPlan.deployment(
        plan.default, layers={path: value for path, value in realised.items() if value != plan.default}, io=plan.io
    )


def check_file(
    model: EdgeModel, judged: EdgeModel, request: ExportRequest, layers: OperatorLayers, paths: Iterable[str]
) -> tuple[PrecisionPlan, tuple[str, ...]]:
    """Return the plan that a file realises, by the operators that are judged, and notes on what differs from the request.

    Raises:
        PlanNotHonouredError: A layer that the plan names is in another precision, or, if ``strict``, any operator is.
        PlanError: The runtime of the request cannot run the file.
    """
    realised = realised_plan(judged, request.plan, layers, list(paths))
    notes = _check_plan(judged, request.plan, realised, layers, strict=request.strict)
    _check_runs(model, layers, request.runtime)
    return realised, notes


def _check_plan(
    model: EdgeModel, plan: PrecisionPlan, realised: PrecisionPlan, layers: OperatorLayers, *, strict: bool
) -> tuple[str, ...]:
    """Return notes on operators that stayed in another precision than the plan's default."""
    looped = {
        path
        for operator, owners in zip(model.operators, layers, strict=True)
        for path in owners
        if operator.kernel in _LOOPS
    }
    for path, expected in plan.layers.items():
        if (got := realised.precision_of(path)) != expected:
            remedy = "build it with unroll=True, or give it" if path in looped else "give the layer"
            raise PlanNotHonouredError(
                f"Expected the layer '{path}' in {expected}, as the plan says. Received: {got} in the file. "
                f"One of its operators has no kernel for {expected}: {remedy} another precision."
            )
    relaxed = []
    for operator, owners in zip(model.operators, layers, strict=True):
        allowed = {plan.precision_of(path) for path in owners} or {plan.default}
        where = f"operator {operator.kernel} of " + (f"layer '{owners[0]}'" if owners else f"'{operator.tensors[0]}'")
        precision = _precision(operator)
        if precision not in allowed and all(_computes(operator, name) for name in allowed):
            hint = ": unroll=True makes integers of a loop" if operator.kernel in _LOOPS else ""
            relaxed.append(f"{where} stayed in {precision}{hint}")
        elif operator.precision == "opaque" and allowed != {precision}:
            relaxed.append(f"{where} holds operators of its own, which were not looked into")
    if strict and relaxed:
        raise PlanNotHonouredError(
            f"Expected every operator in {plan.default} (strict=True). Received: {'; '.join(relaxed)}. "
            "Replace those layers, or export with strict=False."
        )
    return tuple(relaxed)


def _check_runs(model: EdgeModel, layers: OperatorLayers, runtime: str) -> None:
    """Raise ``PlanError`` where a runtime cannot run a file, or computes it wrongly."""
    reasons: dict[str, str] = {}
    for number, text in unsupported_operators(model, runtime):
        owners = layers[number]
        reasons.setdefault(text, f"layer '{owners[0]}'" if owners else f"operator {model.operators[number].kernel}")
    if reasons:
        remedies = {
            "Replace these layers: no precision has such a kernel there."
            if is_without_kernel(text)
            else "Give these layers another precision."
            for text in reasons
        }
        raise PlanError(
            f"Expected a file that {runtime} runs. Received: one for LiteRT alone: {runtime} "
            f"{'; it '.join(f'{text} ({where})' for text, where in reasons.items())}. {' '.join(sorted(remedies))}"
        )


_LOOPS = ("WHILE", "Loop")
"""What a recurrent layer of Keras becomes, in TensorFlow Lite and in ONNX."""

_WITH_WEIGHTS = """
CONV_2D CONV_3D CONV_3D_TRANSPOSE DEPTHWISE_CONV_2D FULLY_CONNECTED TRANSPOSE_CONV EMBEDDING_LOOKUP GATHER
BATCH_MATMUL UNIDIRECTIONAL_SEQUENCE_LSTM UNIDIRECTIONAL_SEQUENCE_RNN SVDF
"""
WEIGHTED = frozenset(_WITH_WEIGHTS.split())
"""Kernels with weights; the constant of an addition is none."""


def _computes(operator: Operator, expected: str) -> bool:
    """Whether an operator's precision says anything about a layer that is expected in another, or the same."""
    precision = _precision(operator)
    if precision in ("cast", "index", "opaque"):
        return False
    weighted = operator.kernel in WEIGHTED and bool(operator.weights)
    return weighted or expected == activation_precision(expected) or precision != activation_precision(expected)


def _precision(operator: Operator) -> str:
    """The precision of an operator; of a loop or a branch, that of the values that pass through it."""
    loops_on_floats = operator.precision == "opaque" and "float32" in operator.types.partition("->")[2]
    return "float32" if loops_on_floats else operator.precision


def _one(used: Sequence[str], expected: str) -> str:
    """The precision of a layer with several operators: the one that differs from the plan, if any does."""
    return next((precision for precision in used if precision != expected), expected)
