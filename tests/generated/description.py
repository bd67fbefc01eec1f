"""Descriptions of models: plain JSON, from which the builder makes the same model on every stack."""

import hashlib
import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict

__all__ = ["CASES", "Description", "Input", "Node", "identity", "load", "save", "stored"]

CASES = Path(__file__).parent / "cases"


class Input(TypedDict):
    """An input of a model.

    Attributes:
        name: Its name; None lets Keras choose one.
        shape: Its shape, without the batch axis.
        dtype: Its element type.
        values: The kind of its samples, a key of ``samples.KINDS``.
    """

    name: str | None
    shape: list[int]
    dtype: str
    values: str


class Node(TypedDict):
    """A layer, or a composition of the builder, applied to earlier values.

    Values are numbered: first the inputs, then one per node.

    Attributes:
        layer: The class of a Keras layer, or a key of ``compositions.COMPOSITIONS``.
        of: The numbers of the values that it is applied to.
        options: Arguments of the layer.
        weights: ``"dead"``, ``"huge"`` or ``"tiny"`` for one output channel of its kernels.
        shared: The number of the node whose layer is applied once more, instead of a new one.
        adapt: Whether the layer is adapted to the samples of the input that it is applied to.
    """

    layer: str
    of: list[int]
    options: NotRequired[dict[str, Any]]
    weights: NotRequired[str]
    shared: NotRequired[int]
    adapt: NotRequired[bool]


class Description(TypedDict):
    """A model with its samples.

    Attributes:
        seed: Of weights and samples.
        inputs: At least one.
        nodes: In the order in which they are applied.
        outputs: The numbers of the values that the model returns.
    """

    seed: int
    inputs: list[Input]
    nodes: list[Node]
    outputs: list[int]


def identity(description: Description) -> str:
    """Return a short name that no other description has."""
    return hashlib.blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=5).hexdigest()


def load(path: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def save(path: Path, case: Any) -> None:
    """Write a case, a line per input and per node, so that a change of one shows as one."""
    path.write_text(json.dumps(case, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def stored(stack: str | None = None) -> dict[str, Any]:
    """Return the fixed cases by name: all, or those of one stack."""
    cases = {path.stem: load(path) for path in sorted(CASES.glob("*.json"))}
    return {name: case for name, case in cases.items() if stack is None or case["stack"] == stack}
