"""The card: how a file was produced and what it computes, as results report it and as the file itself carries it."""

import json
from collections.abc import Iterator

from keras_precision.core.environment import Environment
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.export.operator_layers import layer_rows
from keras_precision.export.plan_compiler import Candidate
from keras_precision.export.request import ExportRequest
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.layer_trace import OperatorLayers
from keras_precision.quantization.qat.trained_ranges import TrainedRanges
from keras_precision.runtimes.model_info import CARD, EdgeModel
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["calibration_rows", "card_text", "facts", "operator_rows", "sides", "tflite_rows", "with_card"]


def facts(
    subject: str,
    request: ExportRequest,
    candidate: Candidate,
    calibration: Calibration | None,
    realised: PrecisionPlan,
    notes: tuple[str, ...],
) -> Result:
    """Return the result of a ``.tflite`` file that was not written yet, without its size and operators."""
    rows = tflite_rows(
        subject, candidate.model, candidate.layers, calibration=calibration, method=request.calibration,
        engine=candidate.engine, foreign_ranges=candidate.foreign_ranges, equalized_pairs=candidate.equalized_pairs,
    )  # fmt: skip
    environment = Environment.here(backend=candidate.model.runtime)
    return Result(f"tflite:{request.plan.default}", tuple(rows), environment, realised, notes)


def tflite_rows(
    subject: str,
    model: EdgeModel,
    layers: OperatorLayers,
    *,
    calibration: Calibration | None,
    method: str,
    engine: str,
    foreign_ranges: int,
    equalized_pairs: int | None,
) -> Iterator[Measurement]:
    """Yield how a ``.tflite`` file was produced: engine, inputs and outputs, operators by layer, calibration."""
    yield Measurement(subject, "engine", engine)
    yield from sides(model)
    yield from layer_rows(layers)
    yield from calibration_rows(
        subject, calibration, "trained" if isinstance(calibration, TrainedRanges) else method, foreign_ranges
    )
    if equalized_pairs is not None:
        yield Measurement(subject, "equalized_pairs", equalized_pairs)


def calibration_rows(
    subject: str, calibration: Calibration | None, method: str, foreign_ranges: int | None = None
) -> Iterator[Measurement]:
    """Yield what ranges were chosen from, and the input ranges: pixels from 0 to 1, or to 255?"""
    if calibration is None:
        return
    yield Measurement(subject, "calibration_samples", calibration.samples)
    yield Measurement(subject, "calibration_method", method)
    if foreign_ranges is not None:
        yield Measurement(subject, "foreign_ranges", foreign_ranges)
    for name, seen in calibration.inputs().items():
        yield Measurement(name, "calibration_minimum", seen.values.minimum)
        yield Measurement(name, "calibration_maximum", seen.values.maximum)


def with_card(content: bytes, result: Result) -> bytes:
    """Return the content of a ``.tflite`` file with a result as its card, a metadata entry that runtimes ignore."""
    graph = Flatbuffer(content)
    graph.set_metadata(CARD, card_text(result))
    return graph.content()


def card_text(result: Result) -> bytes:
    """Return a result as UTF-8 JSON without line breaks, since small devices carry it."""
    return json.dumps(json.loads(result.to_bytes()), separators=(",", ":"), allow_nan=False).encode()


def operator_rows(model: EdgeModel) -> Iterator[Measurement]:
    """Yield the precision of every operator of a file, and counts by kind."""
    for index, operator in enumerate(model.operators):
        text = f"{operator.kernel} {operator.precision} ({operator.types})"
        yield Measurement(f"{index}:{operator.kernel}", "operator", text)
    for kind, count in model.operator_counts.items():
        yield Measurement(kind, "operator_count", count)


def sides(model: EdgeModel) -> Iterator[Measurement]:
    """Yield the types of inputs and outputs."""
    for tensor in model.inputs:
        yield Measurement(tensor.name, "input_type", tensor.described)
    for tensor in model.outputs:
        yield Measurement(tensor.name, "output_type", tensor.described)
