"""Which layer each operator of a ``.tflite`` file comes from, as far as the file tells."""

from collections.abc import Iterator, Sequence

from keras_precision.core.errors import FileFormatError
from keras_precision.core.result import Measurement, Result
from keras_precision.quantization.layer_trace import Layers
from keras_precision.runtimes.model_info import EdgeModel

__all__ = ["layer_rows", "layers_told", "origin"]

_METRIC = "layer_operators"


def layer_rows(layers: Layers) -> Iterator[Measurement]:
    """Yield which operators compute each layer.

    Args:
        layers: The layers that each operator computes.

    Yields:
        For each layer the numbers of its operators, such as ``0-2, 5``.
    """
    numbers: dict[str, list[int]] = {}
    for number, owners in enumerate(layers):
        for path in owners:
            numbers.setdefault(path, []).append(number)
    for path, found in numbers.items():
        yield Measurement(path, _METRIC, ", ".join(_runs(found)))


def layers_told(model: EdgeModel) -> Layers:
    """Return the layers that each operator computes, by the card in the file.

    Args:
        model: The file.

    Returns:
        For each operator, paths of layers; empty for all of a file without a card, or with one of
        another version.
    """
    found: list[list[str]] = [[] for _ in model.operators]
    try:
        rows = Result.from_bytes(model.card.encode(), model.path).select(_METRIC) if model.card else ()
    except FileFormatError:
        rows = ()
    for row in rows:
        for number in _numbers(str(row.value)):
            if number < len(found):
                found[number].append(row.subject)
    return [tuple(owners) for owners in found]


def origin(model: EdgeModel, layers: Layers, number: int) -> str:
    """Return how a message tells where an operator comes from.

    Args:
        model: The file.
        layers: What ``layers_told`` returned.
        number: The operator.

    Returns:
        ``layer 'head'``; ``tensor 'head/MatMul'`` where no layer is told.
    """
    owners = layers[number]
    if owners:
        return f"layer {' and '.join(map(repr, owners))}"
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
