"""Taps: statistics of the inputs and outputs of every layer call, and of their gradients."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from keras_precision._adapters.tensors import Tensors, tensors_of
from keras_precision._adapters.training.training_state import TrainingState

__all__ = ["Call", "Taps"]


@dataclass
class Call:
    """One call of a layer.

    Attributes:
        path: The path of the layer, or of the outer layer that has one.
        within: The names of inner layers below that path.
        kind: The name of the layer's class.
        inputs: Indices of the taps on its inputs.
        outputs: Indices of the taps on its outputs.
    """

    path: str
    within: str
    kind: str
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)


class Taps:
    """Puts a tap on every float tensor that is an input or output of a layer.

    Inner layers of a layer are included, unless it runs them in a loop, whose tensors cannot be used outside.

    Attributes:
        calls: The calls of the last trace, in the order in which they ended.
        forward: The statistics of the tensors, by tap.
        probes: What receives the statistics of the gradients, by tap.
    """

    def __init__(self, state: TrainingState, paths: Mapping[str, Any]) -> None:
        self._state, self._adapter = state, state.adapter
        self._tensors: Tensors = tensors_of(state.adapter)
        self._paths = {id(layer): path for path, layer in paths.items()}
        self._stack: list[tuple[str, str]] = []
        self.calls: list[Call] = []
        self.forward: list[Any] = []
        self.probes: list[Any] = []
        self._reference: Any = None
        self._probe: Callable[[int], Any] = lambda _: None
        self._loops = 0  # outer layers that run their inner layers in a loop

    @contextmanager
    def listening(self, reference: Any, probe: Callable[[int], Any]) -> Iterator[None]:
        """Put taps on the layers that this thread calls inside a ``with`` block.

        ``reference`` tells tensors of this trace from those of inner ones; ``probe`` maps the index of a tap to what
        receives its gradient.
        """
        self.calls, self.forward, self.probes, self._stack, self._loops = [], [], [], [], 0
        self._reference, self._probe = reference, probe
        base, thread = self._adapter.keras.layers.Layer, threading.get_ident()
        original = base.__call__

        def tapped(layer: Any, *args: Any, **kwargs: Any) -> Any:
            location = self._location(layer) if threading.get_ident() == thread else None
            if location is None:
                return original(layer, *args, **kwargs)
            return self._call(location, layer, lambda *a, **k: original(layer, *a, **k), args, kwargs)

        # Keras has no hooks on layers: see KerasAdapter.watching_calls.
        base.__call__ = tapped
        try:
            yield
        finally:
            base.__call__ = original

    def _location(self, layer: Any) -> tuple[str, str] | None:
        """Return the path of a layer and the names below it; None where it is not tapped."""
        if self._loops or self._adapter.is_model(layer):
            return None
        if self._stack:
            path, within = self._stack[-1]
            return path, f"{within}/{layer.name}" if within else str(layer.name)
        known = self._paths.get(id(layer))
        return None if known is None else (known, "")

    def _call(
        self, location: tuple[str, str], layer: Any, proceed: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]
    ) -> Any:
        call = Call(*location, type(layer).__name__)
        arguments = [self._tapped(value, call.inputs) for value in args]
        options = {name: self._tapped(value, call.inputs) for name, value in kwargs.items()}
        loop = self._state.runs_a_loop(layer)
        self._stack.append(location)
        self._loops += loop
        try:
            outputs = proceed(*arguments, **options)
        finally:
            self._loops -= loop
            self._stack.pop()
        outputs = self._tapped(outputs, call.outputs)
        if call.inputs or call.outputs:
            self.calls.append(call)
        return outputs

    def _tapped(self, value: Any, indices: list[int]) -> Any:
        """Return a structure with a tap on every float tensor of this trace; add the taps' indices to a list."""
        if isinstance(value, dict):
            return {key: self._tapped(item, indices) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._tapped(item, indices) for item in value)
        if not self._tensors.is_float(value) or not self._tensors.is_here(value, self._reference):
            return value
        index = len(self.probes)
        probe = self._probe(index)
        tapped = value if probe is None else self._tensors.tap(value, probe)
        self._state.copy_mask(value, tapped)
        self.probes.append(probe)
        self.forward.append(self._tensors.statistics(value))
        indices.append(index)
        return tapped
