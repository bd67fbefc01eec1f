"""Groups of layers that get their precision together."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from keras_precision.core.errors import InputError
from keras_precision.core.plan import PrecisionPlan

__all__ = ["GROUPINGS", "Grouping", "grouped"]

Grouping = str | Mapping[str, str]
"""One of ``GROUPINGS``, or the name of each group to a regular expression that layer paths must match as a whole."""

GROUPINGS = ("model", "layer", "block", "repeated")


def grouped(layers: Mapping[str, Any], grouping: Grouping) -> dict[str, tuple[str, ...]]:
    """Return the groups of a model's layers.

    Args:
        layers: Layer path to layer.
        grouping: ``"model"`` (one group), ``"layer"`` (each layer with weights), ``"block"`` (layers of one nested
            model, or whose names are the same up to their first number: ``block_2_expand``, ``block_2_norm``),
            ``"repeated"`` (layers of one class and configuration), or name to regular expression.

    Returns:
        Name to layer paths. Layers without weights are in groups of more than one layer, where they belong to one.

    Raises:
        InputError: The grouping is unknown.
        PlanError: An expression matches no layer, or one that another matches.

    Example:
        >>> grouped({"block_1_a": None, "block_1_b": None, "stem": None}, "block")
        {'block_1': ('block_1_a', 'block_1_b'), 'stem': ('stem',)}
    """
    paths = list(layers)
    if isinstance(grouping, Mapping):
        patterns = dict.fromkeys(grouping.values(), "float32")
        PrecisionPlan.from_patterns(patterns, paths, kind="training", default="float32")  # raises where they clash
        return {name: _matching(pattern, paths) for name, pattern in grouping.items()}
    if grouping not in GROUPINGS:
        raise InputError(
            f"Expected groups to be one of {', '.join(GROUPINGS)}, or a dict of names to regular expressions. Received: {grouping!r}."
        )
    if grouping == "model":
        return {"model": tuple(paths)}
    if grouping == "layer":
        return {path: (path,) for path in paths if _weighs(layers[path])}
    key = _block if grouping == "block" else lambda path: _kind(layers[path])
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(key(path), []).append(path)
    if grouping == "block":
        return {name: tuple(members) for name, members in found.items()}
    return {members[0]: tuple(members) for members in found.values() if any(_weighs(layers[path]) for path in members)}


def _matching(pattern: str, paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(path for path in paths if re.fullmatch(pattern, path))


def _block(path: str) -> str:
    folder, _, name = path.rpartition("/")
    if folder:
        return folder
    numbered = re.match(r"\D*\d+", name)
    return numbered.group() if numbered else name


def _kind(layer: Any) -> str:
    """Class and configuration, without what every layer has of its own."""
    config = {key: value for key, value in layer.get_config().items() if key not in ("name", "dtype")}
    shapes = [tuple(map(int, each.shape)) for each in layer.weights]
    return f"{type(layer).__name__} {json.dumps(config, default=str, sort_keys=True)} {shapes}"


def _weighs(layer: Any) -> bool:
    return bool(getattr(layer, "weights", ()))
