"""Input: one input of a model or of a file, and arrays in the order of the inputs."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_precision.core.errors import DataError

__all__ = ["Input", "fits_shape", "in_order", "input_order", "with_names_of"]


@dataclass(frozen=True)
class Input:
    """One input of a model or of a file.

    Attributes:
        name: Its unique name in exported files: letters, digits and underscores.
        shape: Its shape without the batch axis; None where a size is free.
        dtype: NumPy's name of its element type; float32 for all floats.
        aliases: Other names in data: its name in the model, its key in a dict of inputs.
        ordered: Whether its place among the inputs is that of its array in a list. TFLiteConverter orders the inputs of a
            file by a hash of their names: https://github.com/tensorflow/tensorflow/issues/55424.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    aliases: tuple[str, ...] = ()
    ordered: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """All names, the usual one first."""
        return (*self.aliases, self.name)


def in_order(data: Mapping[str, Any] | Sequence[Any], inputs: Sequence[Input]) -> list[Any]:
    """Return one array per input, from a dict by name or from a list.

    A list is taken in the order of the inputs where that is known, else by the shapes. Raises DataError where it has
    other arrays than the model has inputs, or where shapes do not tell them apart.
    """
    if isinstance(data, Mapping):
        order = _by_name([(str(key),) for key in data], inputs)
        if order is None or len(data) != len(inputs):
            expected = [entry.aliases[-1] if entry.aliases else entry.name for entry in inputs]
            raise DataError(
                f"Expected a dict with the keys {expected}. Received: {list(data)}. Name the arrays after the model's inputs."
            )
        return [list(data.values())[index] for index in order]
    arrays = list(data)
    if len(arrays) != len(inputs):
        hint = (
            "For many samples of one input, stack them: np.stack(samples)."
            if len(inputs) == 1
            else "Give one array per input."
        )
        raise DataError(
            f"Expected {len(inputs)} array(s), for {_listed(inputs)}. Received: a {type(data).__name__} of {len(arrays)}. {hint}"
        )
    if all(entry.ordered for entry in inputs):
        return arrays
    order = _assigned(arrays, inputs, _array_fits)
    if order is None:
        raise DataError(
            f"Expected a dict by name, since the file's own order of its inputs is arbitrary, and their shapes do not tell them apart: "
            f"{_listed(inputs)}. Received: a {type(data).__name__}. Pass {{'{inputs[0].name}': ..., '{inputs[-1].name}': ...}}."
        )
    return [arrays[index] for index in order]


def input_order(sources: Sequence[Input], targets: Sequence[Input]) -> list[int]:
    """Return the index of the source for every target: the inputs of a model for those of its file, say.

    Names decide, then the order where both have one, then shapes and dtypes; else it raises DataError.
    """
    if len(sources) == len(targets) == 1:
        return [0]
    order = _by_name([entry.names for entry in sources], targets)
    if order is not None:
        return order
    if len(sources) == len(targets):
        ordered = all(entry.ordered for entry in (*sources, *targets))
        if ordered and all(map(_same_kind, sources, targets)):
            return list(range(len(sources)))
        order = _assigned(sources, targets, _same_kind)
        if order is not None:
            return order
    raise DataError(
        f"Expected inputs of the same names, or of shapes that tell them apart: {_listed(sources)}. Received: {_listed(targets)}. "
        "Give the inputs of the model the names of those of the file."
    )


def with_names_of(sources: Sequence[Input], targets: Sequence[Input]) -> list[Input]:
    """Return the sources with the names of their targets as further aliases, so that data may have either."""
    names = {index: target.names for index, target in zip(input_order(sources, targets), targets, strict=True)}
    return [
        replace(entry, aliases=tuple(dict.fromkeys((*names.get(index, ()), *entry.aliases))))
        for index, entry in enumerate(sources)
    ]


def fits_shape(shape: Sequence[int], expected: Sequence[int | None]) -> bool:
    """Return whether an array of this shape fits, where None stands for any size."""
    return len(shape) == len(expected) and all(
        size in (None, received) for size, received in zip(expected, shape, strict=True)
    )


def _by_name(sources: Sequence[Sequence[str]], targets: Sequence[Input]) -> list[int] | None:
    """The index of the source for every target, where their names tell it; first as written, then without what files add."""
    for spelled in (str, _plain):
        options = [
            {index for index, names in enumerate(sources) if {*map(spelled, names)} & {*map(spelled, target.names)}}
            for target in targets
        ]
        order = [next(iter(indices)) for indices in options if len(indices) == 1]
        if len({*order}) == len(targets):
            return order
    return None


def _plain(name: str) -> str:
    """A name as signatures have it: ``serving_default_My input:0`` is ``my_input``."""
    return re.sub(r"\W", "_", name.removeprefix("serving_default_").partition(":")[0], flags=re.ASCII).lower()


def _assigned(sources: Sequence[Any], targets: Sequence[Input], fits: Callable[[Any, Input], bool]) -> list[int] | None:
    """The index of the source for every target; None where more than one assignment fits, or none."""
    options = [{index for index, source in enumerate(sources) if fits(source, target)} for target in targets]
    order: dict[int, int] = {}
    while len(order) < len(targets):
        free = [(number, indices - {*order.values()}) for number, indices in enumerate(options) if number not in order]
        single = next(((number, indices) for number, indices in free if len(indices) == 1), None)
        if single is None:
            return None
        order[single[0]] = single[1].pop()
    return [order[number] for number in range(len(targets))]


def _array_fits(array: Any, entry: Input) -> bool:
    values = np.asarray(array)
    kinds = "biuf" if _kind(entry) == "float" else "biu"
    shapes = (values.shape, values.shape[1:])  # of one sample, and of a batch
    return values.dtype.kind in kinds and any(fits_shape(shape, entry.shape) for shape in shapes)


def _same_kind(source: Input, target: Input) -> bool:
    """Whether two inputs could be the same, by their shapes and kinds of numbers."""
    same = _kind(source) == _kind(target) and len(source.shape) == len(target.shape)
    sizes = zip(source.shape, target.shape, strict=False)
    return same and all(None in pair or pair[0] == pair[1] for pair in sizes)


def _kind(entry: Input) -> str:
    """The kind of numbers of an input, such as ``float`` or ``int``; NumPy does not know all dtypes of models."""
    return entry.dtype.rstrip("0123456789")


def _listed(inputs: Sequence[Input]) -> str:
    return ", ".join(f"'{entry.name}'" for entry in inputs)
