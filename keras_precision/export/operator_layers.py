"""The layer that an operator of a ``.tflite`` file comes from, as the card in the file reports it."""

from collections.abc import Iterator, Sequence

from keras_precision.core.errors import FileFormatError
from keras_precision.core.result import Measurement, Result
from keras_precision.quantization.layer_trace import OperatorLayers
from keras_precision.runtimes.model_info import EdgeModel

__all__ = ["layer_rows", "layers_on_card", "origin"]

_METRIC = "layer_operators"


def layer_rows(layers: OperatorLayers) -> Iterator[Measurement]:
    """Yield for every layer the numbers of its operators, such as ``0-2, 5``."""
    operators: dict[str, list[int]] = {}
    for number, paths in enumerate(layers):
        for path in paths:
            operators.setdefault(path, []).append(number)
    for path, numbers in operators.items():
        yield Measurement(path, _METRIC, ", ".join(_runs(numbers)))


def layers_on_card(model: EdgeModel) -> OperatorLayers:
    """Return the layer paths of every operator; all empty where there is no card, or one of another version."""
    layers: list[list[str]] = [[] for _ in model.operators]
    try:
        rows = Result.from_bytes(model.card.encode(), model.path).select(_METRIC) if model.card else ()
    except FileFormatError:
        rows = ()
    for row in rows:
        for number in _numbers(str(row.value)):
            if number < len(layers):
                layers[number].append(row.subject)
    return [tuple(paths) for paths in layers]


def origin(model: EdgeModel, layers: OperatorLayers, number: int) -> str:
    """Return where an operator comes from: ``layer 'head'``, or ``tensor 'head/MatMul'`` where no layer is known."""
    paths = layers[number]
    if paths:
        return f"layer {' and '.join(map(repr, paths))}"
    return f"tensor '{model.operators[number].tensors[0].partition(';')[0]}'"


def _runs(numbers: Sequence[int]) -> Iterator[str]:
    """Ascending numbers, those that follow one another as ``first-last``."""
    first = numbers[0]
    for number, following in zip(numbers, [*numbers[1:], None], strict=True):
        if following != number + 1:
            yield f"{first}-{number}" if number > first else str(number)
            first = following if following is not None else number


def _numbers(text: str) -> Iterator[int]:
    for part in text.split(", "):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
