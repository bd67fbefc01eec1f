"""What an export tells of a file, and puts into it for whoever finds it in a year."""

import json
from collections.abc import Iterator

from keras_precision.core.environment import Environment
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.export.candidate import Candidate
from keras_precision.export.operator_layers import layer_rows
from keras_precision.export.request import Request
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.qat.trained_ranges import TrainedRanges
from keras_precision.runtimes.model_info import CARD, EdgeModel
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["card_text", "facts", "input_ranges", "operator_rows", "sides", "with_card"]


def facts(
    subject: str,
    request: Request,
    made: Candidate,
    measured: Calibration | None,
    realised: PrecisionPlan,
    notes: tuple[str, ...],
) -> Result:
    """Return how a file was made, and what it is.

    Args:
        subject: The name of the file.
        request: What was asked for.
        made: What was made.
        measured: What its ranges were chosen from; None where it has none.
        realised: The plan that it realises.
        notes: What was relaxed.

    Returns:
        The result, without size and operators.
    """
    rows = [Measurement(subject, "engine", made.engine), *sides(made.model), *layer_rows(made.layers)]
    if measured is not None:
        rows += [
            Measurement(subject, "calibration_samples", measured.samples),
            Measurement(
                subject, "calibration_method", "trained" if isinstance(measured, TrainedRanges) else request.calibration
            ),
            Measurement(subject, "foreign_ranges", made.foreign_ranges),
            *input_ranges(measured),
        ]
    if made.equalized_pairs is not None:
        rows.append(Measurement(subject, "equalized_pairs", made.equalized_pairs))
    environment = Environment.here(backend=made.model.runtime)
    return Result(f"tflite:{request.plan.default}", tuple(rows), environment, realised, notes)


def with_card(content: bytes, told: Result) -> bytes:
    """Return a file that says how it was made.

    Args:
        content: A ``.tflite`` file.
        told: What it is to say.

    Returns:
        The file with an entry that runtimes pass over.
    """
    graph = Flatbuffer(content)
    graph.set_metadata(CARD, card_text(told))
    return graph.content()


def card_text(told: Result) -> bytes:
    """Return what a card says, without the line breaks that files for people have: small devices carry it.

    Args:
        told: What it is to say.

    Returns:
        JSON, as UTF-8.
    """
    return json.dumps(json.loads(told.to_bytes()), separators=(",", ":"), allow_nan=False).encode()


def operator_rows(written: EdgeModel) -> Iterator[Measurement]:
    """Yield what a file's operators compute in.

    Args:
        written: The file.

    Yields:
        A row for each operator, and one for each kind.
    """
    for index, operator in enumerate(written.operators):
        text = f"{operator.kernel} {operator.precision} ({operator.types})"
        yield Measurement(f"{index}:{operator.kernel}", "operator", text)
    for kind, count in written.operator_counts.items():
        yield Measurement(kind, "operator_count", count)


def sides(written: EdgeModel) -> Iterator[Measurement]:
    """Yield the type of each input and output.

    Args:
        written: The file.

    Yields:
        A row for each.
    """
    for tensor in written.inputs:
        yield Measurement(tensor.name, "input_type", tensor.described)
    for tensor in written.outputs:
        yield Measurement(tensor.name, "output_type", tensor.described)


def input_ranges(measured: Calibration) -> Iterator[Measurement]:
    """Yield what the model was fed with: pixels from 0 to 1, or to 255?

    Args:
        measured: The calibration.

    Yields:
        The least and the largest value of each input.
    """
    for name, seen in measured.inputs().items():
        yield Measurement(name, "calibration_minimum", seen.values.minimum)
        yield Measurement(name, "calibration_maximum", seen.values.maximum)
