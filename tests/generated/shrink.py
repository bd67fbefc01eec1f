"""Shrinking: the smallest description that still breaks the same invariant, by leaving out and simplifying."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

from generated.description import Description

__all__ = ["shrunk"]


def shrunk(description: Description, fails: Callable[[Description], bool], attempts: int = 60) -> Description:
    """Return a smaller description for which ``fails`` holds, after at most so many attempts."""
    current = description
    while True:
        for candidate in _smaller(current):
            attempts -= 1
            if attempts < 0:
                return current
            if fails(candidate):
                current = candidate
                break
        else:
            return current


def _smaller(description: Description) -> Iterator[Description]:
    """Yield descriptions with one thing less, those with the most less first."""
    for number in range(len(description["outputs"])):
        if len(description["outputs"]) > 1:
            yield _pruned({**description, "outputs": _without(description["outputs"], number)})
    for number in reversed(range(len(description["nodes"]))):
        yield from _bypassed(description, number)
    for number, node in enumerate(description["nodes"]):
        for changed in _simpler(node):
            nodes: Any = [*description["nodes"]]
            nodes[number] = changed
            yield {**description, "nodes": nodes}
    for number, entry in enumerate(description["inputs"]):
        for change in ({"name": f"input_{number}"}, {"values": "normal"}):
            if any(entry[key] != value for key, value in change.items()):  # type: ignore[literal-required]
                inputs: Any = [*description["inputs"]]
                inputs[number] = {**entry, **change}
                yield {**description, "inputs": inputs}


def _without(values: list[int], number: int) -> list[int]:
    return [value for position, value in enumerate(values) if position != number]


def _bypassed(description: Description, number: int) -> Iterator[Description]:
    """Yield the description with each of a node's values in the place of the node; Keras refuses what does not fit."""
    offset = len(description["inputs"])
    for value in dict.fromkeys(description["nodes"][number]["of"]):
        changed: Any = copy.deepcopy(description)
        for node in changed["nodes"]:
            node["of"] = [value if of == number + offset else of for of in node["of"]]
        changed["outputs"] = list(dict.fromkeys(value if of == number + offset else of for of in changed["outputs"]))
        if min(changed["outputs"]) >= offset:  # an input itself is no output
            yield _pruned(changed)


def _simpler(node: Any) -> Iterator[Any]:
    """Yield a node with an option less, or a simpler one."""
    if "weights" in node:
        yield {key: value for key, value in node.items() if key != "weights"}
    for name, value in node.get("options", {}).items():
        if name in ("activation", "dtype", "go_backwards", "unroll", "depth", "twice", "strides") and value:
            yield {**node, "options": {key: other for key, other in node["options"].items() if key != name}}


def _pruned(description: Description) -> Description:
    """Return a description without inputs and nodes that reach no output, its values numbered anew."""
    offset = len(description["inputs"])
    needed = set(description["outputs"])
    for number in reversed(range(len(description["nodes"]))):
        node = description["nodes"][number]
        if number + offset in needed:
            needed |= {*node["of"], *([node["shared"]] if "shared" in node else [])}
    numbers = {old: new for new, old in enumerate(sorted(needed))}
    nodes: Any = [
        _renumbered(node, numbers) for number, node in enumerate(description["nodes"], offset) if number in needed
    ]
    return {
        "seed": description["seed"],
        "inputs": [entry for number, entry in enumerate(description["inputs"]) if number in needed],
        "nodes": nodes,
        "outputs": [numbers[number] for number in description["outputs"]],
    }


def _renumbered(node: Any, numbers: dict[int, int]) -> Any:
    shared = {"shared": numbers[node["shared"]]} if "shared" in node else {}
    return {**node, "of": [numbers[value] for value in node["of"]], **shared}
