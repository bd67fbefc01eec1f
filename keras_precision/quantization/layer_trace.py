"""Trace: the layers that the operators of an exported file come from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from keras_precision.core.errors import FileFormatError
from keras_precision.core.system.json_documents import Fields
from keras_precision.runtimes.model_info import EdgeModel

__all__ = ["OperatorLayers", "Trace", "layers_of"]

OperatorLayers = list[tuple[str, ...]]
"""Per operator of a file, the paths of the layers that it computes."""


@dataclass(frozen=True)
class Trace:
    """The layers of a model's graph.

    Attributes:
        scopes: Graph operation, and graph scope, to layer path; an empty one where no layer computes the operation.
        outputs: Per output of the model, the path of the layer that computes it; None if no layer does.
        paths: All layer paths of the model.
    """

    scopes: Mapping[str, str]
    outputs: tuple[str | None, ...]
    paths: tuple[str, ...] = ()

    def path_of(self, name: str) -> str | None:
        """Return the layer path of a graph operation, by its name or innermost known scope; None if there is none."""
        # A constant with the name of its operation gets a numeric suffix: MatMul1.
        for candidate in (name, re.sub(r"\d+$", "", name)):
            if candidate in self.scopes:
                return self.scopes[candidate] or None
        scope = name.rpartition("/")[0]
        while scope:
            if scope in self.scopes:
                return self.scopes[scope]
            scope = scope.rpartition("/")[0]
        return None

    def is_outside_layers(self, name: str) -> bool:
        """Return whether a graph operation is known to belong to no layer."""
        return self.scopes.get(name) == ""

    def last_operation(self, path: str) -> str:
        """Return the graph operation that a layer ends with; it has scopes in the order of its operations."""
        names = [name for name, owner in self.scopes.items() if owner == path]
        return next(name for name in reversed(names) if not any(other.startswith(f"{name}/") for other in names))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"scopes": dict(self.scopes), "outputs": list(self.outputs), "paths": list(self.paths)}

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        """Return the trace whose ``to_json`` returned these fields."""
        outputs = fields.get("outputs", list)
        if not all(path is None or isinstance(path, str) for path in outputs):
            raise FileFormatError(f"{fields.source}: expected the field 'outputs' to be texts and nulls.")
        return cls(fields.texts("scopes"), tuple(outputs), fields.text_list("paths"))


def layers_of(model: EdgeModel, trace: Trace) -> OperatorLayers:
    """Return the layer paths of every operator of a file, empty where they are unknown.

    The converter names a tensor after the graph operations that were fused into it, joined by
    semicolons, and renames the outputs of the file; an operator without such a name
    belongs to the layer whose output it reads.
    """
    output_layers = {
        writer: path for writer, path in zip(model.writers, trace.outputs, strict=True) if path is not None
    }
    layers: OperatorLayers = []
    for index, operator in enumerate(model.operators):
        named = [path for name in operator.tensors for part in name.split(";") if (path := trace.path_of(part))]
        named = named or ([output_layers[index]] if index in output_layers else [])
        inherited = [path for number in operator.reads for path in layers[number][-1:]]
        layers.append(tuple(dict.fromkeys(named or inherited)))
    return layers
