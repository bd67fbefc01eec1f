"""Trace: which layer each part of an exported file comes from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from keras_precision.runtimes.model_info import EdgeModel

__all__ = ["Layers", "Trace", "layers_of"]

Layers = list[tuple[str, ...]]
"""For each operator of a file, the paths of the layers that it computes."""


@dataclass(frozen=True)
class Trace:
    """The graph of a model, as far as its layers can be told from it.

    Attributes:
        scopes: Graph operation, and graph scope, to layer path.
        outputs: For each output of the model, the path of the layer that makes it; None if no layer does.
        paths: All layer paths of the model.
    """

    scopes: Mapping[str, str]
    outputs: tuple[str | None, ...]
    paths: tuple[str, ...] = ()

    def path_of(self, name: str) -> str | None:
        """Return the layer of a graph operation, by its name or the innermost scope that is known.

        Args:
            name: The operation, as graph or file name it.

        Returns:
            The path; None if no layer claims it.
        """
        # A constant that shares its operation's name gets a number behind it: MatMul1.
        for candidate in (name, re.sub(r"\d+$", "", name)):
            if candidate in self.scopes:
                return self.scopes[candidate]
        scope = name.rpartition("/")[0]
        while scope:
            if scope in self.scopes:
                return self.scopes[scope]
            scope = scope.rpartition("/")[0]
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON holds them.

        Returns:
            ``scopes``, ``outputs`` and ``paths``.
        """
        return {"scopes": dict(self.scopes), "outputs": list(self.outputs), "paths": list(self.paths)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the trace that ``to_json`` described.

        Args:
            values: What was read.

        Returns:
            The trace.
        """
        return cls(dict(values["scopes"]), tuple(values["outputs"]), tuple(values["paths"]))


def layers_of(model: EdgeModel, trace: Trace) -> Layers:
    """Return the layers that each operator of a file computes.

    The converter names a tensor after the graph operations that were fused into it, joined by
    semicolons, and gives the outputs of the file other names; an operator that is left without a
    name belongs to the layer that it reads from.

    Args:
        model: The file.
        trace: The graph that it was made from.

    Returns:
        For each operator, the paths of its layers; empty where they cannot be told.
    """
    makers = {writer: path for writer, path in zip(model.writers, trace.outputs, strict=True) if path is not None}
    found: list[tuple[str, ...]] = []
    for index, operator in enumerate(model.operators):
        own = [path for name in operator.tensors for part in name.split(";") if (path := trace.path_of(part))]
        own = own or ([makers[index]] if index in makers else [])
        inherited = [path for number in operator.reads for path in found[number][-1:]]
        found.append(tuple(dict.fromkeys(own or inherited)))
    return found
