"""Groups of layers that share one precision."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from keras_precision.core.errors import InputError
from keras_precision.core.plan import PrecisionPlan

__all__ = ["GROUPINGS", "Grouping", "group_layers"]

Grouping = str | Mapping[str, str]
"""One of ``GROUPINGS``, or a dict of group name to a regular expression for whole layer paths."""

GROUPINGS = ("model", "layer", "block", "repeated")


def group_layers(layers: Mapping[str, Any], grouping: Grouping) -> dict[str, tuple[str, ...]]:
    """Return group name to layer paths, from layer path to layer.

    ``"model"`` is one group; ``"layer"`` one per layer with weights; ``"block"`` one per nested model, or per name up
    to its first number (``block_2_expand``, ``block_2_norm``); ``"repeated"`` one per class and configuration. Layers
    without weights are members of groups, but never a group of their own under ``"layer"`` and ``"repeated"``.

    Example:
        >>> group_layers({"block_1_a": None, "block_1_b": None, "stem": None}, "block")
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
        return {path: (path,) for path in paths if _has_weights(layers[path])}
    key = _block_of if grouping == "block" else lambda path: _class_and_config(layers[path])
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(key(path), []).append(path)
    if grouping == "block":
        return {name: tuple(members) for name, members in groups.items()}
    return {
        members[0]: tuple(members) for members in groups.values() if any(_has_weights(layers[path]) for path in members)
    }


def _matching(pattern: str, paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(path for path in paths if re.fullmatch(pattern, path))


def _block_of(path: str) -> str:
    folder, _, name = path.rpartition("/")
    if folder:
        return folder
    numbered = re.match(r"\D*\d+", name)
    return numbered.group() if numbered else name


def _class_and_config(layer: Any) -> str:
    """Class, configuration and weight shapes as text; name and dtype are left out, since they differ between repeats."""
    config = {key: value for key, value in layer.get_config().items() if key not in ("name", "dtype")}
    shapes = [tuple(map(int, weight.shape)) for weight in layer.weights]
    return f"{type(layer).__name__} {json.dumps(config, default=str, sort_keys=True)} {shapes}"


def _has_weights(layer: Any) -> bool:
    return bool(getattr(layer, "weights", ()))
